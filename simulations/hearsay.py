"""What somebody announces on the network that is not so, and where those addresses lead.

Records as they come out of a packet, put to the ears of each node's discovery: everybody on a
network hears, and may say, what they like under whatever name.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

import trio

from kowalski.mesh.discovery import SERVICE, Ears, Sighting
from kowalski.mesh.identity import identity_from_seed
from kowalski.node.sightings import hear_sighting
from simulations.nowhere import lies_about
from simulations.places import Place
from simulations.world import World

EVERY_S = 0.25
MADE_UP = 8
"""Peers that nobody is, announced each time."""
TTL_S = 120.0

ODD: tuple[bytes, ...] = (
    b"",
    b"\xff",
    b"\xff\xfe\xfd not as long as it says",
    b"\x0bdnsaddr=/p2p",
    b"\x09dnsaddr=\xc3\x28",
    b"\x04mesh\x05mesh=\x07dnsaddr",
    bytes([255]) + b"dnsaddr=/dns4/" + b"a" * 241,
    (bytes([40]) + b"dnsaddr=/ip4/10.0.0.1/tcp/99999/p2p/x".ljust(40, b"x")) * 200,
)
"""Texts that are no announcement: empty, too short, no text, too much."""


class Network:
    """Where announcements are heard by all nodes of a world that are up."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ears = [Ears(f"node-{place.number}", _at_once) for place in world.places]

    def say(self, name: str, text: bytes, *, ttl_s: float = TTL_S) -> None:
        for ears in self._ears:
            ears.hear(f"{name}.{SERVICE}", text, ttl_s=ttl_s)

    def tell(self) -> None:
        """Have nodes take what they have heard. Who stands still takes it when it moves again."""
        now = self._world.wires.now()
        for ears, place in zip(self._ears, self._world.places, strict=True):
            if place.time.frozen_until <= now:
                _tell(ears, place)


def _at_once(do: Callable[[], object]) -> None:
    do()


def _tell(ears: Ears, place: Place) -> None:
    """Who is down has heard nothing."""
    seen: list[Sighting] = []
    while ears.sightings.statistics().current_buffer_used:
        seen.append(ears.sightings.receive_nowait())
    if place.node is not None:
        for sighting in seen:
            place.context.run(hear_sighting, sighting, place.node.mesh)


async def spoof(world: World, seed: str) -> None:
    """Announce members, and many that nobody is, at false addresses; until cancelled."""
    dice, network, mesh = random.Random(seed), Network(world), world.root.mesh
    members = [place.identity.peer for place in world.places]
    made_up = 0
    while True:
        for peer in members:
            network.say(f"member-{dice.randrange(1000)}", lies_about(peer, mesh, dice))
        for _ in range(MADE_UP):
            made_up += 1
            nobody = identity_from_seed(hashlib.sha256(f"{seed} {made_up}".encode()).digest()).peer
            network.say(f"nobody-{made_up}", lies_about(nobody, mesh, dice))
        network.say("x" * 300, dice.choice(ODD))
        network.say(f"member-{dice.randrange(1000)}", b"", ttl_s=0.0)
        network.tell()
        await trio.sleep(EVERY_S)
