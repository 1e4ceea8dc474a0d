"""Addresses at which nobody is: what is announced of them, and what comes of dialling them."""

from __future__ import annotations

import random
from collections.abc import Iterable

import trio

from kowalski.protocol.errors import PeerUnreachableError
from kowalski.protocol.ids import Address, MeshId, PeerId

LIES = 6
"""Addresses of one announcement; one in two answers nothing, the others refuse."""
BLACK_HOLE, REFUSING = "/ip4/203.0.113.", "/ip4/198.51.100."
"""Networks on which no machine is that runs this (RFC 5737): nearer addresses are dialled first."""
REFUSED_AFTER_S = 0.002


def text_of(strings: Iterable[str]) -> bytes:
    """A TXT record of these strings."""
    encoded = [one.encode("utf-8", "surrogateescape")[:255] for one in strings]
    return b"".join(bytes([len(one)]) + one for one in encoded)


def lies_about(peer: PeerId, mesh: MeshId, dice: random.Random) -> bytes:
    """A record that `peer` of `mesh` is at addresses at which it is not: other ones each time."""
    nets = [dice.choice((BLACK_HOLE, REFUSING)) for _ in range(LIES)]
    hosts = (f"{net}{dice.randrange(256)}/tcp/{dice.randrange(1, 65536)}" for net in nets)
    return text_of((*(f"dnsaddr={host}/p2p/{peer}" for host in hosts), f"mesh={mesh}"))


def is_black_hole(address: Address) -> bool:
    """Whether a dial there is answered by nobody, not even by a no."""
    return address.startswith(BLACK_HOLE)


async def lead_nowhere(address: Address, *, timeout_s: float) -> None:
    """What comes of dialling an address of the lies.

    Raises:
        PeerUnreachableError: always, sooner or later.
    """
    await trio.sleep(timeout_s if is_black_hole(address) else REFUSED_AFTER_S)
    raise PeerUnreachableError(f"nobody answers at {address}")
