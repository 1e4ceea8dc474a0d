"""Who is there: what nodes believe of each other, against what is."""

from __future__ import annotations

from functools import partial

from kowalski.mesh.peer_facts import PeerFacts
from kowalski.node.verbs import Node
from kowalski.protocol.ids import PeerId
from simulations.places import Place
from simulations.witness import Witness
from simulations.world import World

SPEED_MAX = 100_000.0
"""Tokens a second beyond which a claim is a lie (protocol/messages/telemetry.py)."""


class Beliefs:
    """`telemetry_monotone`, `telemetry_within_reason`: what nodes take from what they hear."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._heard: dict[tuple[int, int, PeerId], dict[str, int]] = {}
        """By believer, its boots, and of whom: the highest sequence of each boot, latest last."""

    def look(self, world: World) -> None:
        for place in world.places:
            if place.node is not None:
                facts = world.as_node(place.number, lambda node: node.mesh.facts())
                for one in facts:
                    self._look_at(place, one)

    def _look_at(self, place: Place, one: PeerFacts) -> None:
        who = f"node {place.number} of node {self._witness.number_of(one.peer)}"
        if one.hot is not None:
            hot = one.hot
            shares = (hot.memory_used, hot.cpu_used)
            speeds = hot.tokens_per_s.values()
            self._witness.check(
                "telemetry_within_reason",
                holds=all(0.0 <= share <= 1.0 for share in shares)
                and all(0.0 <= speed <= SPEED_MAX for speed in speeds),
                words=f"{who} believes {hot}",
            )
        if one.profile is None or one.is_self:
            return
        heard = self._heard.setdefault((place.number, place.boots, one.peer), {})
        boot, sequence = one.profile.boot, one.profile.sequence
        latest = next(reversed(heard), boot)
        self._witness.check(
            "telemetry_monotone",
            holds=sequence >= heard.get(boot, 0) and (boot not in heard or boot == latest),
            words=f"{who} believes profile {sequence} of boot {boot} after {heard}",
        )
        heard[boot] = max(sequence, heard.get(boot, 0))


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
