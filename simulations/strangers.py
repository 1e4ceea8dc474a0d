"""Strangers by the dozen at one node's door: who knock with what is no invite, and who say nothing.

Each has an identity and a connection of its own. With them comes one newcomer that was invited.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Protocol

import trio

from kowalski.mesh.admission import JOIN_PROTOCOL, MEMBERSHIP_PROTOCOL, join
from kowalski.mesh.conversation import open_asker
from kowalski.mesh.identity import identity_from_seed
from kowalski.mesh.membership_certificates import invite_proof, join_transcript
from kowalski.node.control_messages import ROLES
from kowalski.protocol.errors import ConfigError, RemoteProtocolError
from kowalski.protocol.ids import Address, PeerId
from kowalski.protocol.join_line import JoinLine
from kowalski.protocol.messages.membership import Ready
from kowalski.protocol.messages.trust import (
    InviteProven,
    JoinAsked,
    MeshProven,
    RenewalAsked,
    SignedCertificate,
)
from simulations.places import UNIX_EPOCH_S
from simulations.rogue import MANY, NOES, PATIENCE_S, Rogue

INVITE_S = 3600
EVERY_S = 0.06
NEWCOMER_AFTER = MANY // 6
"""Strangers that are there before whoever was invited comes."""
LORISES = 40
LOOK_S = 1.0
LET_GO_S = 36.0
"""In which a node hangs up on who has said nothing of itself (half a minute, it says)."""


async def _come(one: Rogue, name: str, do: Callable[[Rogue], Awaitable[None]]) -> None:
    """Somebody else at the same door, who does something there and leaves."""
    identity = identity_from_seed(hashlib.sha256(f"{one.identity.peer} {name}".encode()).digest())
    async with (
        one.world.network.transport(identity.peer) as transport,
        open_asker(transport) as asker,
    ):
        another = replace(one, identity=identity, transport=transport, asker=asker)
        at = Address(f"/memory/{one.home}")
        with suppress(*NOES):
            await transport.connect(one.home, at, timeout_s=PATIENCE_S)
            transport.admit(one.home)
            await do(another)


# --- who would join -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Line:
    """What an invite is, and what somebody who has seen only half of it makes of that."""

    invite: bytes
    secret: bytes


async def flood_joins(one: Rogue) -> None:
    """Knock as many, each without a right to it; the one that was invited is let in, once."""
    line = _issued(one)
    known = _Line(secrets.token_bytes(16), secrets.token_bytes(16))
    if line is not None:
        known = _Line(line.invite, line.secret)
    guests: list[SignedCertificate] = []
    async with trio.open_nursery() as nursery:
        for ordinal in range(MANY):
            if line is not None and ordinal == NEWCOMER_AFTER:
                nursery.start_soon(_be_let_in, one, line, guests)
            knock = KNOCKS[one.dice.randrange(len(KNOCKS))]
            # With the whole of the line only once it is spent: before, it would be a right.
            seen = known if guests else _Line(known.invite, secrets.token_bytes(16))
            nursery.start_soon(_come_and_knock, one, f"joiner {ordinal}", partial(knock, line=seen))
            await trio.sleep(EVERY_S)


async def _come_and_knock(one: Rogue, name: str, knock: Callable[[Rogue], Awaitable[None]]) -> None:
    await _come(one, name, knock)
    one.world.witness.check(
        "strangers_get_nothing",
        holds=not one.served,
        words=f"node {one.victim} let strangers in: {[each.KIND for each in one.served]}",
    )


def _issued(one: Rogue) -> JoinLine | None:
    """An invite of the node at whose door they are; None where it may let nobody in."""
    node = one.world.places[one.victim].node
    if node is None or node.mesh.trust.authority() is None:
        return None
    issued = one.world.as_node(
        one.victim, lambda node: node.invites.issue(ROLES, ttl_s=INVITE_S, uses=1)
    )
    return JoinLine(
        mesh=one.world.root.mesh,
        inviter=one.home,
        addresses=(),
        invite=bytes.fromhex(issued.id),
        secret=bytes.fromhex(issued.secret),
        not_after_unix_s=issued.not_after_unix_s,
        roles=ROLES,
    )


async def _be_let_in(one: Rogue, line: JoinLine, guests: list[SignedCertificate]) -> None:
    """Join as a node does. `newcomers_are_let_in`, if nothing else keeps the newcomer away."""
    world, place = one.world, one.world.places[one.victim]
    began_s, boots, why = world.wires.now(), place.boots, ["it could not be reached"]

    async def knock(newcomer: Rogue) -> None:
        name, asker = newcomer.identity.peer, newcomer.asker
        try:
            membership = await join(
                name,
                "newcomer",
                line,
                asker,
                unix_clock=lambda: UNIX_EPOCH_S + world.wires.now(),
            )
        except ConfigError as no:
            why[:] = [str(no)]
        else:
            why.clear()
            guests.append(membership.certificate)

    await _come(one, "newcomer", knock)
    storm = world.wires.storm
    has_excuse = storm.packet_loss or storm.bytes_per_s < inf or place.time.frozen_until > began_s
    if place.node is not None and place.boots == boots and not (why and has_excuse):
        world.witness.check(
            "newcomers_are_let_in",
            holds=not why,
            words=f"node {one.victim} did not let in whom it had invited: {why}",
        )


class Knock(Protocol):
    def __call__(self, one: Rogue, /, line: _Line) -> Awaitable[None]: ...


async def _prove(
    one: Rogue, line: _Line, *, as_whom: PeerId | None = None, invite: bytes = b""
) -> None:
    """Go through with it, with a proof that is worth what the line is."""
    nonce = secrets.token_bytes(16)
    asked = JoinAsked(invite=invite or line.invite, nonce=nonce)
    with trio.fail_after(PATIENCE_S):
        async with one.asker.converse(one.home, JOIN_PROTOCOL, asked) as talk:
            shown = await talk.receive()
            if not isinstance(shown, MeshProven):
                raise RemoteProtocolError(f"{shown.KIND} in place of a proof")
            whose = as_whom or one.identity.peer
            transcript = join_transcript(whose, one.home, nonce, shown.nonce)
            proof = invite_proof(line.secret, transcript)
            await talk.send(InviteProven(proof=proof, name="\u202egnp.exe\u0000"))
            one.served.append(await talk.receive())


async def _with_what_they_have(one: Rogue, line: _Line) -> None:
    """The name of an invite that there is, and half of the time not what it is worth."""
    await _prove(one, line)


async def _with_what_is_none(one: Rogue, line: _Line) -> None:
    await _prove(one, line, invite=secrets.token_bytes(16))


async def _as_somebody_else(one: Rogue, line: _Line) -> None:
    """With a proof that was made for another."""
    await _prove(one, line, as_whom=one.world.peer(one.victim))


async def _over_and_over(one: Rogue, line: _Line) -> None:
    """Many at a time on one stream."""
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(_try, one, line)


async def _try(one: Rogue, line: _Line) -> None:
    with suppress(*NOES):
        await _prove(one, line)


async def _half_way(one: Rogue, line: _Line) -> None:
    """And then no more."""
    asked = JoinAsked(invite=line.invite, nonce=secrets.token_bytes(16))
    async with one.asker.converse(one.home, JOIN_PROTOCOL, asked) as talk:
        await talk.receive()
        await trio.sleep_forever()


async def _out_of_turn(one: Rogue, line: _Line) -> None:
    """What is no part of it, in the middle."""
    asked = JoinAsked(invite=line.invite, nonce=secrets.token_bytes(16))
    with trio.fail_after(PATIENCE_S):
        async with one.asker.converse(one.home, JOIN_PROTOCOL, asked) as talk:
            await talk.receive()
            await talk.send(Ready())
            one.served.append(await talk.receive())


async def _as_a_member(one: Rogue, line: _Line) -> None:
    """A renewal of what they never had."""
    del line
    await one.ask(JOIN_PROTOCOL, RenewalAsked())


KNOCKS: tuple[Knock, ...] = (
    _with_what_they_have,
    _with_what_is_none,
    _as_somebody_else,
    _over_and_over,
    _half_way,
    _out_of_turn,
    _as_a_member,
)


# --- who say nothing ----------------------------------------------------------------------------


async def say_nothing(one: Rogue) -> None:
    """Connect as many, and keep the door busy: nothing said, or a byte now and then."""
    async with trio.open_nursery() as nursery:
        for ordinal in range(LORISES):
            nursery.start_soon(_dawdle, one, ordinal)
            await trio.sleep(EVERY_S)


async def _dawdle(one: Rogue, ordinal: int) -> None:
    """Come again whenever one was hung up on."""

    async def stay(another: Rogue) -> None:
        async with trio.open_nursery() as nursery:
            if ordinal % 2:
                nursery.start_soon(_trickle, another)
            await _until_let_go(another)
            nursery.cancel_scope.cancel()

    while True:
        await _come(one, f"loris {ordinal}", stay)
        await trio.sleep(1.0 + one.dice.random())


async def _trickle(one: Rogue) -> None:
    """A frame that would be long, a byte at a time."""
    with suppress(*NOES):
        stream = await one.stream(one.dice.choice((MEMBERSHIP_PROTOCOL, JOIN_PROTOCOL)))
        await stream.send(b"\x00\x00\x80\x00\x00\x00\x00\x01\x83\x01")
        while True:
            await trio.sleep(2.0)
            await stream.send(b"\x61")


async def _until_let_go(one: Rogue) -> None:
    """`strangers_are_let_go`: looked at again and again."""
    world, place = one.world, one.world.places[one.victim]
    began_s, boots = world.wires.now(), place.boots
    while one.home in one.transport.connections:
        lasted_s = world.wires.now() - max(began_s, place.time.frozen_until)
        world.witness.check(
            "strangers_are_let_go",
            holds=lasted_s <= LET_GO_S or place.node is None or place.boots != boots,
            words=f"node {one.victim} has listened to a stranger's silence for {lasted_s:.1f} s",
        )
        await trio.sleep(LOOK_S)
