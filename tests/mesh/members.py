"""Members of a mesh on a loopback network, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from kowalski.mesh.core.connectivity import MemberArrived, MemberLeft, Params, Sighted
from kowalski.mesh.invites import InviteBook
from kowalski.mesh.loopback_transport import LoopbackNetwork, LoopbackTransport
from kowalski.mesh.membership_certificates import Membership, MeshRoot
from kowalski.mesh.mesh import Mesh, open_mesh
from kowalski.mesh.telemetry_gossip import Self
from kowalski.mesh.transport import Transport
from kowalski.protocol.ids import Address, PeerId
from kowalski.protocol.messages.telemetry import Hot, Language, Model, Occupancy, Profile
from kowalski.protocol.messages.trust import ROLES, Role
from tests.mesh.wires import eventually

NOW_UNIX_S = 1_700_000_000
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
    told: list[MemberArrived | MemberLeft]

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
        self._folder = folder

    @asynccontextmanager
    async def open_member(
        self,
        name: str,
        *,
        belongs: Membership | None = None,
        about: About | None = None,
        params: Params | None = None,
        over: Callable[[LoopbackTransport], Transport] = lambda transport: transport,
    ) -> AsyncIterator[Member]:
        """A member whose peer id is its name eight times over; `over` may wrap its transport."""
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
                unix_clock=wall_clock,
                params=params,
            ) as mesh:
                told: list[MemberArrived | MemberLeft] = []
                mesh.listen(told.append)
                yield Member(mesh, transport, about, told)


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
