"""Who is there: what nodes believe of each other, against what is."""

from __future__ import annotations

from functools import partial

from kowalski.mesh.peer_facts import PeerFacts
from kowalski.node.verbs import Node
from kowalski.protocol.ids import PeerId
from simulations.world import World


def disagreements(world: World) -> list[str]:
    """Pairs of nodes that are up and do not hold each other for members that can be reached."""
    found: list[str] = []
    up = [place for place in world.places if place.node is not None]
    for one in up:
        for other in up:
            if one is other:
                continue
            peer = other.identity.peer
            facts = world.as_node(one.number, partial(_facts, peer))
            if not facts.is_routable:
                found.append(
                    f"node {one.number} holds node {other.number} for {facts.state} "
                    f"({facts.why_not})"
                )
    return found


def _facts(peer: PeerId, node: Node) -> PeerFacts:
    return node.mesh.facts_of(peer)


def ghosts(world: World) -> list[str]:
    """Nodes that are down, or were never there, and are held for reachable."""
    down = {place.identity.peer for place in world.places if place.node is None}
    found: list[str] = []
    for place in world.places:
        if place.node is None:
            continue
        facts = world.as_node(place.number, lambda node: node.mesh.facts())
        found += [
            f"node {place.number} routes to node {world.number_of(one.peer)}, which is down"
            for one in facts
            if one.is_routable and one.peer in down
        ]
    return found
