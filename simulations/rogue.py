"""A peer without manners at one node's door: a stranger, or a member that should know better.

It has a transport and no node. Whatever it does, the node it visits goes on, and so do its peers;
what it was told no to it has not got.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from kowalski.mesh.admission import MEMBERSHIP_PROTOCOL
from kowalski.mesh.conversation import Asker, open_asker
from kowalski.mesh.identity import Identity, identity_from_seed
from kowalski.mesh.loopback_peer import LoopbackTransport
from kowalski.mesh.transport import Stream
from kowalski.node.control_messages import ROLES
from kowalski.protocol import codec, ids
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import Address, PeerId, TaskId
from kowalski.protocol.limits import FRAME_BYTES_MAX, GOSSIP_BYTES_MAX
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.inference import ChatMessage, CompletionAsked
from kowalski.protocol.messages.membership import Hello, Ready, RoundTrip
from kowalski.protocol.messages.placement import Claim
from kowalski.protocol.messages.repl import CellAsked, SessionClosed
from kowalski.protocol.messages.task import Grant, TaskSpec
from kowalski.protocol.messages.telemetry import Hot, HotDelta, Profile
from kowalski.protocol.messages.trust import SignedCertificate
from kowalski.rlm.journal import GENESIS
from simulations.frames import made
from simulations.menu import Fault
from simulations.places import UNIX_EPOCH_S
from simulations.world import World

TASK, REPL, INFERENCE = "/kowalski/task/1", "/kowalski/repl/1", "/kowalski/inference/1"
DOORS = (MEMBERSHIP_PROTOCOL, TASK, REPL, INFERENCE, "/kowalski/fold/1", "/kowalski/content/1")
MANY = 120
PATIENCE_S = 5.0

NOES = (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
    trio.TooSlowError,
)


@dataclass(slots=True)
class Rogue:
    """Connected to the node at `victim`."""

    world: World
    identity: Identity
    transport: LoopbackTransport
    asker: Asker
    victim: int
    dice: random.Random
    served: list[Message] = field(default_factory=list)
    """What it has got without having a right to it; the story looks into it."""

    @property
    def home(self) -> PeerId:
        return self.world.peer(self.victim)

    @property
    def certificate(self) -> SignedCertificate:
        now_unix_s = int(UNIX_EPOCH_S + self.world.wires.now())
        return self.world.root.certify(self.identity.peer, ROLES, now_unix_s=now_unix_s)

    def hello(self, certificate: SignedCertificate) -> Hello:
        boot = hashlib.sha256(self.identity.peer.encode()).hexdigest()[:16]
        return Hello(certificate=certificate, boot=boot, name="rogue", addresses=())

    async def prove(self, certificate: SignedCertificate) -> Message:
        """Go through the handshake; the last word, or one of `NOES`."""
        with trio.fail_after(PATIENCE_S):
            async with self.asker.converse(
                self.home, MEMBERSHIP_PROTOCOL, self.hello(certificate)
            ) as asked:
                await asked.receive()
                await asked.send(Ready())
                return await asked.receive()

    async def ask(self, protocol: str, message: Message, *, timeout_s: float = PATIENCE_S) -> None:
        """Ask, and take any no for an answer; what comes instead is kept."""
        with suppress(*NOES), trio.fail_after(timeout_s):
            async with self.asker.converse(self.home, protocol, message) as asked:
                self.served.append(await asked.receive())

    async def stream(self, protocol: str) -> Stream:
        return await self.transport.open_stream(self.home, protocol, timeout_s=PATIENCE_S)


Attack = Callable[[Rogue], Awaitable[None]]


async def visit(
    world: World, victim: int, fault: Fault, attack: Attack, *, is_member: bool
) -> None:
    """Go to `victim`'s door and attack, then stay. As a member, prove first that one is one."""
    seed = hashlib.sha256(f"rogue {fault}".encode()).digest()
    identity = identity_from_seed(seed)
    home = world.peer(victim)
    async with (
        world.network.transport(identity.peer) as transport,
        open_asker(transport) as asker,
    ):
        one = Rogue(world, identity, transport, asker, victim, random.Random(seed))
        with suppress(*NOES):
            await transport.connect(home, Address(f"/memory/{home}"), timeout_s=PATIENCE_S)
            transport.admit(home)
            if is_member:
                await one.prove(one.certificate)
            await attack(one)
        await trio.sleep_forever()


# --- what it does -------------------------------------------------------------------------------


async def send_garbage(one: Rogue) -> None:
    """Noise, half frames, lengths beyond reason, depth beyond reason, at every door."""
    dice = one.dice
    nasty: tuple[Callable[[], bytes], ...] = (
        lambda: dice.randbytes(dice.randrange(1, 400)),
        lambda: (FRAME_BYTES_MAX + 1).to_bytes(4, "big") + b"\x00\x00\x00\x01",
        lambda: b"\xff\xff\xff\xff\x00\x00\x00\x01" + bytes(64),
        lambda: _sealed(b"\x83\x01" + b"\x81" * 500 + b"\x00"),
        lambda: _sealed(b"\x83\x01\x6fmembership/hello" + b"\xa1\x61a" * 200),
        lambda: _sealed(made(99, "membership/hello", {})),
        lambda: _sealed(made(1, "task/grant", {"task": b"\xff", "term": -1})),
        lambda: _sealed(b""),
        lambda: _sealed(made(1, "membership/round-trip", {}))[: dice.randrange(1, 20)],
    )
    for _ in range(40):
        with suppress(*NOES):
            stream = await one.stream(dice.choice(DOORS))
            await stream.send(dice.choice(nasty)())
            if dice.random() < 0.5:
                await stream.reset()
        await trio.sleep(0.05)


NO_TEXT = (b"\xc3\x28", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xc0\xaf", b"\xff\xfe")
"""What no UTF-8 is: cut short, a surrogate, too long for anything, overlong, never a byte of it."""
ODD_TEXT = ("\x00", "\u202e\u2066 evil", "a\u0301" * 60, "\U0010ffff" * 30, "../../etc", "\r\n: x")


async def send_bad_text(one: Rogue) -> None:
    """What is no text where text should be, and text that nobody would want to print."""
    dice, certificate = one.dice, one.certificate
    for _ in range(40):
        bad = dice.choice(NO_TEXT)
        text = bytes([0x60 + len(bad)]) + bad
        frames = (
            b"\x83\x01" + text + b"\xa0",
            b"\x83\x01\x70membership/hello\xa1" + text + b"\x01",
            b"\x83\x01\x70membership/hello\xa1\x64name" + text,
            b"\x83\x01\x6arepl/asked\xa2\x64task" + text + b"\x64code" + text,
        )
        door = dice.choice(DOORS)
        with suppress(*NOES):
            stream = await one.stream(door)
            await stream.send(_sealed(dice.choice(frames)))
        odd = one.hello(certificate).model_copy(update={"name": dice.choice(ODD_TEXT)})
        await one.ask(MEMBERSHIP_PROTOCOL, odd)
        topic = ids.topic(one.world.root.mesh, "telemetry")
        await one.transport.publish(topic, dice.choice(frames))
        await trio.sleep(0.05)


def _sealed(frame: bytes) -> bytes:
    return codec.seal(codec.Envelope(1, frame))


async def show_a_stolen_certificate(one: Rogue) -> None:
    """That of another member, and then ask for work as if it had been believed."""
    others = [place for place in one.world.places if place.number != one.victim]
    stolen = one.dice.choice(others).membership.certificate
    await _show(one, stolen)


async def show_an_unsigned_certificate(one: Rogue) -> None:
    good = one.certificate
    await _show(one, good.model_copy(update={"signature": bytes(len(good.signature))}))


async def _show(one: Rogue, certificate: SignedCertificate) -> None:
    with suppress(*NOES):
        one.served.append(await one.prove(certificate))
    for protocol, message in _orders(one.home, TaskId("task-0"), term=1):
        await one.ask(protocol, message)
    one.world.witness.check(
        "strangers_get_nothing",
        holds=not one.served,
        words=f"node {one.victim} served a stranger {[each.KIND for each in one.served]}",
    )


async def speak_of_old_terms(one: Rogue) -> None:
    """A deposed coordinator that has not heard of it: asks and closes in terms that are over.

    And closes sessions in the present one, which another leads.
    """
    for _ in range(10):
        nodes = [place.node for place in one.world.places if place.node is not None]
        tasks = {
            (node.mesh.me, task.id): task.term for node in nodes for task in node.submitter.tasks
        }
        for (submitter, task), term in sorted(tasks.items()):
            if term:  # of the present one it is no coordinator either
                closed = SessionClosed(task=task, term=term, submitter=submitter)
                await one.ask(REPL, closed, timeout_s=1.0)
            if term > 1:
                old = one.dice.randrange(1, term)
                for protocol, message in _orders(submitter, task, term=old):
                    await one.ask(protocol, message, timeout_s=1.0)
        await trio.sleep(0.5)


def _orders(submitter: PeerId, task: TaskId, *, term: int) -> tuple[tuple[str, Message], ...]:
    """What only a coordinator, or a submitter, says."""
    spec = TaskSpec(prompt="mine", max_iterations=1, timeout_s=10.0)
    closed = SessionClosed(task=task, term=term, submitter=submitter)
    cell = CellAsked(
        task=task,
        term=term,
        cell=90_000,
        language="python",
        code="say hello",
        keeps_session=False,
        timeout_s=1.0,
        remaining_s=1.0,
        claim=Claim(submitter=submitter),
    )
    grant = Grant(
        task=task,
        term=term,
        spec=spec,
        prefix_entries=0,
        last_digest=GENESIS,
        lease_s=1.0,
        remaining_s=1.0,
    )
    return ((REPL, closed), (REPL, cell), (TASK, grant))


async def say_what_nobody_knows(one: Rogue) -> None:
    """Kinds of a version to come, and doors that are not there: a no, in words, to each."""
    for ordinal in range(10):
        with suppress(*NOES), trio.fail_after(PATIENCE_S):
            stream = await one.stream(one.dice.choice(DOORS))
            frame = made(1, f"future/thing-{ordinal}", {"depth": 1})
            await stream.send(_sealed(frame))
            (reply,) = codec.EnvelopeReader().feed(await stream.receive())
            one.world.witness.check(
                "unknown_kinds_are_refused",
                holds=codec.decode(reply.frame).KIND in {"base/failed", "base/refused"},
                words=f"node {one.victim} said {reply.frame[:40].hex()} to an unknown kind",
            )
            await stream.reset()
        with suppress(*NOES):
            await one.stream("/kowalski/future/1")


async def open_many_streams(one: Rogue) -> None:
    """And say nothing on them."""
    async with trio.open_nursery() as nursery:
        for _ in range(MANY):
            nursery.start_soon(_open_and_wait, one)
            await trio.sleep(0.005)


async def _open_and_wait(one: Rogue) -> None:
    with suppress(*NOES):
        await one.stream(one.dice.choice(DOORS))
        await trio.sleep_forever()


async def ask_too_much(one: Rogue) -> None:
    """As many model calls and cells as fit, over and over."""
    call = CompletionAsked(
        model="m",
        messages=(ChatMessage(role="user", content="flood " * 50),),
        remaining_s=5.0,
    )
    async with trio.open_nursery() as nursery:
        for ordinal in range(MANY):
            task = ids.TaskId(f"flood-{ordinal}")
            _, (_, cell), _ = _orders(one.identity.peer, task, term=1)
            nursery.start_soon(one.ask, INFERENCE, call)
            nursery.start_soon(one.ask, REPL, cell)
            nursery.start_soon(one.ask, MEMBERSHIP_PROTOCOL, RoundTrip())
            await trio.sleep(0.01)


async def gossip_too_much(one: Rogue) -> None:
    """Noise and repetition on the topics that members listen to."""
    topics = [ids.topic(one.world.root.mesh, name) for name in ("telemetry", "tasks", "roster")]
    for _ in range(MANY):
        size = one.dice.choice((1, 100, 4000, GOSSIP_BYTES_MAX))
        data = one.dice.randbytes(size)
        await one.transport.publish(one.dice.choice(topics), data)
        await trio.sleep(0.01)


async def say_too_much_of_itself(one: Rogue) -> None:
    """Telemetry without an end, each message well formed and newer than the last, of boot on boot.

    It does no work, and says so: whom it lured would be the victim of another kind.
    """
    topic = ids.topic(one.world.root.mesh, "telemetry")
    for sequence in range(10 * MANY):
        boot = hashlib.sha256(f"{one.identity.peer} {sequence // 100}".encode()).hexdigest()[:16]
        hot = Hot(memory_used=one.dice.random(), cpu_used=one.dice.random())
        delta = HotDelta(boot=boot, sequence=sequence, hot=hot)
        message = delta if sequence % 10 else _profile(boot, sequence, hot)
        await one.transport.publish(topic, codec.encode(message))
        await trio.sleep(0.01)


def _profile(boot: str, sequence: int, hot: Hot) -> Profile:
    return Profile(
        boot=boot,
        sequence=sequence,
        name=f"rogue-{sequence}",
        version="1.0",
        roles=(),
        addresses=(),
        sandbox="none",
        languages=(),
        models=(),
        cpu="none",
        cores=1,
        memory_bytes=1,
        system="none",
        hot=hot,
    )
