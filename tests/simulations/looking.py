"""A witness of no world, and what checkers hear of one: for tests of what breaks a promise."""

from __future__ import annotations

from collections.abc import Hashable

from kowalski.mesh.identity import identity_from_seed
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.base import Message
from simulations.virtual_time import JumpingClock, NodeTime
from simulations.wires import StormyWires
from simulations.witness import Said, Witness

PEERS = tuple(identity_from_seed(bytes([number + 1]) * 32).peer for number in range(4))


def witness_of(peers: tuple[PeerId, ...] = PEERS) -> Witness:
    wires = StormyWires(JumpingClock())
    wires.times = {peer: NodeTime() for peer in peers}
    witness = Witness()
    witness.attend(wires, list(peers))
    return witness


def said(
    message: Message,
    *,
    speaker: int = 0,
    hearer: int = 1,
    request: Hashable = 1,
    own_s: float = 0.0,
    by_asker: bool = True,
    is_first: bool = True,
    is_last: bool = False,
) -> Said:
    return Said(
        own_s,
        own_s,
        speaker,
        hearer,
        request,
        "",
        message,
        by_asker=by_asker,
        is_first=is_first,
        is_last=is_last,
    )


def broken(witness: Witness) -> list[str]:
    """The invariants that were broken, in order."""
    return [one.invariant for one in witness.violations]
