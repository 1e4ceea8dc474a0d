"""Who is there: what nodes believe of each other, against what is."""

from __future__ import annotations

from functools import partial

from kowalski.mesh.core.telemetry_view import PeerTelemetry
from kowalski.mesh.peer_facts import PeerFacts
from kowalski.node.verbs import Node
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.telemetry import Hot, Profile
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
        self._believed: dict[tuple[int, int], dict[PeerId, PeerTelemetry]] = {}
        """By believer and its boots: what was looked at last. Most of it is believed still."""

    def look(self, world: World) -> None:
        for place in world.places:
            if place.node is None:
                continue
            mesh = place.node.mesh
            believed = self._believed.setdefault((place.number, place.boots), {})
            for peer, told in mesh.telemetry.view.peers.items():
                if believed.get(peer) is not told:
                    believed[peer] = told
                    self._look_at_hot(place, peer, told.hot)
                    self._look_at_profile(place, peer, told.profile)

    def _who(self, place: Place, peer: PeerId) -> str:
        return f"node {place.number} of node {self._witness.number_of(peer)}"

    def _look_at_hot(self, place: Place, peer: PeerId, hot: Hot) -> None:
        is_reasonable = (
            0.0 <= hot.memory_used <= 1.0
            and 0.0 <= hot.cpu_used <= 1.0
            and all(0.0 <= speed <= SPEED_MAX for speed in hot.tokens_per_s.values())
        )
        # To print it takes longer than all the rest of this.
        words = "" if is_reasonable else f"{self._who(place, peer)} believes {hot}"
        self._witness.check("telemetry_within_reason", holds=is_reasonable, words=words)

    def _look_at_profile(self, place: Place, peer: PeerId, profile: Profile) -> None:
        heard = self._heard.setdefault((place.number, place.boots, peer), {})
        boot, sequence = profile.boot, profile.sequence
        latest = next(reversed(heard), boot)
        is_later = sequence >= heard.get(boot, 0) and (boot not in heard or boot == latest)
        told = f"profile {sequence} of boot {boot} after {heard}" if not is_later else ""
        words = f"{self._who(place, peer)} believes {told}" if told else ""
        self._witness.check("telemetry_monotone", holds=is_later, words=words)
        heard[boot] = max(sequence, heard.get(boot, 0))


def disagreements(world: World) -> list[str]:
    """Pairs of nodes that are up and do not hold each other for members that can be reached."""
    found: list[str] = []
    up = [place for place in world.places if place.node is not None]
    for one in up:
        for other in up:
            if one is other:
                continue
            peer, mesh = other.identity.peer, world[one.number].mesh
            if not mesh.is_routable(peer) or mesh.state_of(peer) != "alive":
                facts = world.as_node(one.number, partial(_facts, peer))
                found.append(
                    f"node {one.number} holds node {other.number} for {facts.state}, "
                    f"{facts.membership} ({facts.why_not})"
                )
    return found


def _facts(peer: PeerId, node: Node) -> PeerFacts:
    return node.mesh.facts_of(peer)


def ghosts(world: World) -> list[str]:
    """Nodes that are down, or were never there, and are held for reachable."""
    down = [place for place in world.places if place.node is None]
    return [
        f"node {place.number} routes to node {other.number}, which is down"
        for place in world.places
        for other in down
        if place.node is not None and place.node.mesh.is_routable(other.identity.peer)
    ]
