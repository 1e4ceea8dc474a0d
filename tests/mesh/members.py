"""Members of a mesh on a loopback network, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from kowalski.mesh.conversation import Conversation
from kowalski.mesh.core.connectivity import MemberConnected, MemberDisconnected, Sighted
from kowalski.mesh.core.failure_detector_events import MemberChanged
from kowalski.mesh.invites import InviteBook
from kowalski.mesh.loopback_transport import LoopbackNetwork, LoopbackTransport
from kowalski.mesh.membership_certificates import Membership, MeshRoot
from kowalski.mesh.mesh import Mesh, Tuning, open_mesh
from kowalski.mesh.telemetry_gossip import Self
from kowalski.mesh.transport import Transport
from kowalski.mesh.trust import Keeping
from kowalski.protocol import ids
from kowalski.protocol.ids import Address, PeerId
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.content import ContentAsked, ContentChunk
from kowalski.protocol.messages.telemetry import Hot, Language, Model, Occupancy, Profile
from kowalski.protocol.messages.trust import ROLES, Role
from tests.mesh import transport_promises
from tests.mesh.wires import eventually

NOW_UNIX_S = 1_700_000_000
WORK = "/kowalski-test/work/1"
ROOT = MeshRoot(bytes(range(32)))
OTHER_ROOT = MeshRoot(bytes(range(1, 33)))


def wall_clock() -> float:
    return NOW_UNIX_S


def membership(
    peer: PeerId,
    *,
    roles: tuple[Role, ...] = ROLES,
    root: MeshRoot = ROOT,
    is_founder: bool = False,
) -> Membership:
    signed = root.certify(peer, roles, now_unix_s=NOW_UNIX_S)
    return Membership(root.mesh, signed, root if is_founder else None)


@dataclass
class About:
    """What a member says of itself; tests change it under way."""

    name: str
    boot: str = "00000000000000b0"
    languages: tuple[str, ...] = ("python",)
    models: tuple[str, ...] = ("small",)
    roles: tuple[Role, ...] = ("repl", "infer", "fold")
    hot: Hot = field(
        default_factory=lambda: Hot(
            repl=Occupancy(slots=4), inference=Occupancy(slots=4), folding=Occupancy(slots=4)
        )
    )

    def profile(self, sequence: int) -> Profile:
        return Profile(
            boot=self.boot,
            sequence=sequence,
            name=self.name,
            version="1",
            roles=self.roles,
            addresses=(),
            sandbox="none",
            languages=tuple(Language(name=name, version="3") for name in self.languages),
            models=tuple(Model(name=name) for name in self.models),
            hot=self.hot,
        )


@dataclass
class Member:
    mesh: Mesh
    transport: Transport
    about: About
    told: list[MemberConnected | MemberDisconnected]
    thoughts: list[MemberChanged]

    @property
    def peer(self) -> PeerId:
        return self.mesh.me

    def meets(self, *others: Member) -> None:
        for other in others:
            self.mesh.sighted(Sighted(other.peer, other.transport.addresses))

    def arrivals(self, peer: PeerId) -> list[str]:
        return [type(change).__name__ for change in self.told if change.peer == peer]


class Village:
    """Where members live. `open_member` is one, for the length of its block."""

    def __init__(self, network: LoopbackNetwork, folder: Path) -> None:
        self.network = network
        self.unix_s: float = NOW_UNIX_S
        self._folder = folder

    @asynccontextmanager
    async def open_member(
        self,
        name: str,
        *,
        belongs: Membership | None = None,
        about: About | None = None,
        tuning: Tuning | None = None,
        keeps: bool = False,
        over: Callable[[LoopbackTransport], Transport] = lambda transport: transport,
    ) -> AsyncIterator[Member]:
        """A member whose peer id is its name eight times over; `over` may wrap its transport.

        Where it `keeps`, its incarnation outlives it.
        """
        peer = peer_of(name)
        about = about or About(name)
        invites = InviteBook(self._folder / f"{name}.json", wall_clock)
        async with self.network.transport(peer) as loopback:
            transport = over(loopback)
            async with open_mesh(
                transport,
                belongs or membership(peer),
                Self(about.name, about.boot, about.profile, lambda: about.hot),
                invites,
                unix_clock=lambda: self.unix_s,
                tuning=tuning,
                keeping=Keeping(incarnation_path=self._folder / name if keeps else None),
            ) as mesh:
                told: list[MemberConnected | MemberDisconnected] = []
                thoughts: list[MemberChanged] = []
                mesh.listen(told.append)
                mesh.listen_to_membership(thoughts.append)
                yield Member(mesh, transport, about, told, thoughts)


def peer_of(name: str) -> PeerId:
    return PeerId(name * 8)


def address_of(name: str) -> Address:
    return Address(f"/memory/{peer_of(name)}")


async def become_members(*members: Member) -> None:
    """Wait until each takes each other for a member."""
    await eventually(
        lambda: all(one.mesh.is_member(other.peer) for one in members for other in members),
        within_s=30,
    )


def busy(hot: Hot, running: int) -> Hot:
    """The same with so many cells running."""
    return hot.model_copy(update={"repl": Occupancy(running=running, slots=4)})


def rebooted(about: About) -> About:
    return replace(about, boot="00000000000000b1")


@asynccontextmanager
async def members(village: Village, *names: str) -> AsyncIterator[list[Member]]:
    """Members that know each other already."""
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(village.open_member(name)) for name in names]
        for number, one in enumerate(opened):
            one.meets(*opened[number + 1 :])
        await become_members(*opened)
        yield opened


def asked(number: int = 0) -> ContentAsked:
    return ContentAsked(hash=ids.content_hash(b""), offset=number, bytes_max=1)


def said(number: int) -> ContentChunk:
    return ContentChunk(data=b"", bytes_total=number)


async def echo(conversation: Conversation, request: Message) -> Message:
    assert isinstance(request, ContentAsked)
    return said(request.offset)


@asynccontextmanager
async def stranger(village: Village, *, knows: Member) -> AsyncIterator[LoopbackTransport]:
    """A peer called S, connected to a member, that has not joined."""
    async with village.network.transport(peer_of("S")) as transport:
        await transport_promises.join(transport, knows.transport)
        yield transport
