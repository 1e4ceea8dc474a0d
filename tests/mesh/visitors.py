"""Members of one mesh on wires of either kind, and peers without manners beside them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import trio

from kowalski.mesh.conversation import Asker, Conversation, open_asker, serve
from kowalski.mesh.failure_detection import SWIM_PROTOCOL
from kowalski.mesh.identity import Identity, identity_from_seed
from kowalski.mesh.invites import InviteBook
from kowalski.mesh.libp2p_transport import open_libp2p_transport
from kowalski.mesh.loopback_transport import open_loopback_network
from kowalski.mesh.membership_certificates import Authority, Membership, MeshRoot, certify
from kowalski.mesh.mesh import Mesh, Tuning, open_mesh
from kowalski.mesh.telemetry_gossip import Self
from kowalski.mesh.transport import Transport
from kowalski.mesh.trust import Keeping
from kowalski.node.app import CLIENTS
from kowalski.node.services.leading import SUBMITTERS
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.membership import RoundTrip
from kowalski.protocol.messages.swim import ProbeAnswered
from kowalski.protocol.messages.telemetry import Profile
from kowalski.protocol.messages.trust import ROLES, Role, SignedCertificate
from tests.mesh.wires import LOOPBACK
from tests.protocol.examples import HOT, PROFILE

NOW = 1_800_000_000
ROOT = MeshRoot(hashlib.sha256(b"the root of the house").digest())
OTHER_ROOT = MeshRoot(hashlib.sha256(b"the neighbour's root").digest())

ROOMS = {
    "/kowalski/task/1": SUBMITTERS,
    "/kowalski/repl/1": CLIENTS,
    "/kowalski/inference/1": CLIENTS,
    "/kowalski/fold/1": CLIENTS,
}

WireKind = Literal["loopback", "libp2p"]
Wires = Callable[[Identity], AbstractAsyncContextManager[Transport]]


class Clock:
    """Unix time as a test wants it."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def person(name: str) -> Identity:
    return identity_from_seed(hashlib.sha256(name.encode()).digest())


def signed(
    identity: Identity,
    *roles: Role,
    by: Authority = ROOT,
    now_unix_s: int = NOW,
    epoch: int = 0,
) -> SignedCertificate:
    return certify(by, identity.peer, roles or ROLES, now_unix_s=now_unix_s, epoch=epoch)


def membership(certificate: SignedCertificate, root: MeshRoot | None = None) -> Membership:
    return Membership(ROOT.mesh, certificate, root)


@asynccontextmanager
async def open_wires(kind: WireKind) -> AsyncIterator[Wires]:
    if kind == "libp2p":
        yield lambda identity: open_libp2p_transport(identity, listen=LOOPBACK)
        return
    async with open_loopback_network() as network:
        yield lambda identity: network.transport(identity.peer)


@dataclass(frozen=True, slots=True)
class Member:
    mesh: Mesh
    transport: Transport
    invites: InviteBook

    @property
    def peer(self) -> PeerId:
        return self.mesh.me


async def answer(_asking: Conversation, request: Message) -> Message:
    await trio.lowlevel.checkpoint()
    return request


def about(name: str) -> Self:
    boot = hashlib.sha256(name.encode()).hexdigest()[:16]

    def profile(sequence: int) -> Profile:
        return PROFILE.model_copy(update={"boot": boot, "sequence": sequence, "name": name})

    return Self(name, boot, profile, lambda: HOT)


@asynccontextmanager
async def open_member(
    wires: Wires,
    identity: Identity,
    belongs: Membership,
    folder: Path,
    *,
    unix_clock: Callable[[], float],
    keeping: Keeping | None = None,
    tuning: Tuning | None = None,
) -> AsyncIterator[Member]:
    name = identity.peer[-8:]
    invites = InviteBook(folder / f"{name}-invites.json", unix_clock)
    async with (
        wires(identity) as transport,
        open_mesh(
            transport,
            belongs,
            about(name),
            invites,
            unix_clock=unix_clock,
            keeping=keeping or Keeping(identity),
            tuning=tuning,
        ) as mesh,
    ):
        for protocol, askers in ROOMS.items():
            mesh.serve(protocol, answer, askers=askers)
        yield Member(mesh, transport, invites)


@dataclass(frozen=True, slots=True)
class Visitor:
    """A peer that says what it likes. It is connected to `home`."""

    identity: Identity
    transport: Transport
    asker: Asker
    home: PeerId

    @property
    def peer(self) -> PeerId:
        return self.identity.peer

    async def ask(self, protocol: str, *said: Message) -> Message:
        """Say these, one after each thing that comes; the last that comes. Raises what comes."""
        first, *others = said
        with trio.fail_after(10):
            async with self.asker.converse(self.home, protocol, first) as asked:
                for one in others:
                    await asked.receive()
                    await asked.send(one)
                return await asked.receive()

    async def ask_for_work(self, protocol: str) -> Message:
        return await self.ask(protocol, RoundTrip())


async def _be_there(_asking: Conversation, _asked: Message) -> Message:
    await trio.lowlevel.checkpoint()
    return ProbeAnswered()


@asynccontextmanager
async def open_visitor(wires: Wires, identity: Identity, home: Member) -> AsyncIterator[Visitor]:
    async with wires(identity) as transport, open_asker(transport) as asker:
        await transport.connect(home.peer, home.transport.addresses[0], timeout_s=5)
        transport.admit(home.peer)  # the visitor keeps nothing from home; home is the one to judge
        serve(transport, SWIM_PROTOCOL, _be_there)
        yield Visitor(identity, transport, asker, home.peer)
