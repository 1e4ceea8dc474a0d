"""How a revocation gets around: worlds of eight, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio.testing

from kowalski.mesh.core.connectivity import Sighted
from kowalski.mesh.core.failure_detector_state import Params
from kowalski.mesh.loopback_transport import LoopbackNetwork, Weather, open_loopback_network
from kowalski.mesh.membership_certificates import Admin, Membership, revoke
from kowalski.mesh.mesh import Timeouts, Tuning
from kowalski.mesh.roster_gossip import ANNOUNCE_S, portions
from kowalski.mesh.trust import Keeping
from kowalski.protocol import codec
from kowalski.protocol.ids import Address, PeerId
from kowalski.protocol.limits import GOSSIP_BYTES_MAX, MEMBERS_MAX
from kowalski.protocol.messages.trust import Role, Roster
from tests.mesh.visitors import NOW, ROOT, Member, membership, open_member, person, signed

pytestmark = pytest.mark.trio
VirtualTime = trio.testing.MockClock

PLAIN: tuple[Role, ...] = ("submit", "coordinate", "repl", "infer", "fold")


QUIET = Tuning(
    detection=Params(interval_s=120.0, timeout_s=10.0, sync_s=3600.0),
    timeouts=Timeouts(telemetry_tick_s=120.0),
)


@dataclass
class Town:
    """Houses from 0 on; 0 has the root key, 1 may be an admin. All know the addresses of all."""

    network: LoopbackNetwork
    nursery: trio.Nursery
    folder: Path
    memberships: list[Membership]
    tuning: Tuning
    members: dict[int, Member] = field(default_factory=dict)
    offset_s: float = 0.0
    """By how much the clock on the wall was moved."""
    _leaving: dict[int, tuple[trio.CancelScope, trio.Event]] = field(default_factory=dict)

    def peer(self, number: int) -> PeerId:
        return person(f"house {number}").peer

    def unix(self) -> float:
        return NOW + self.offset_s + trio.current_time()

    async def come(self, *numbers: int) -> None:
        for number in numbers:
            self.members[number] = await self.nursery.start(self._live, number)

    async def go(self, *numbers: int) -> None:
        for number in numbers:
            scope, gone = self._leaving[number]
            scope.cancel()
            await gone.wait()

    async def _live(self, number: int, *, task_status: trio.TaskStatus[Member]) -> None:
        identity = person(f"house {number}")

        def keep(renewed: Membership) -> None:
            self.memberships[number] = renewed

        gone = trio.Event()
        with trio.CancelScope() as scope:
            async with open_member(
                lambda who: self.network.transport(who.peer),
                identity,
                self.memberships[number],
                self.folder,
                unix_clock=self.unix,
                keeping=Keeping(identity, self.folder / f"{number}-roster.json", keep),
                tuning=self.tuning,
            ) as member:
                self._leaving[number] = scope, gone
                for other in set(range(len(self.memberships))) - {number}:
                    address = Address(f"/memory/{self.peer(other)}")
                    member.mesh.sighted(Sighted(self.peer(other), (address,), is_static=True))
                task_status.started(member)
                await trio.sleep_forever()
        del self.members[number]
        gone.set()

    async def until_met(self, within_s: float = 90) -> None:
        """All that are here, except those who are put out, route to each other."""
        with trio.fail_after(within_s):
            while not all(  # noqa: ASYNC110 virtual time costs nothing
                one.mesh.is_routable(other.peer)
                for one in self.members.values()
                for other in self.members.values()
            ):
                await trio.sleep(0.05)

    async def seconds_until_out(self, number: int, within_s: float) -> float:
        """Until nobody here counts house `number` as a member, nor has a connection to it."""
        began, gone = trio.current_time(), self.peer(number)
        with trio.fail_after(within_s):
            while any(  # noqa: ASYNC110 as above
                member.mesh.roles_of(gone)
                or member.mesh.is_member(gone)
                or gone in member.transport.connections
                for other, member in self.members.items()
                if other != number
            ):
                await trio.sleep(0.01)
        return trio.current_time() - began


@asynccontextmanager
async def open_town(
    folder: Path,
    houses: int = 8,
    *,
    admin: bool = False,
    weather: Weather | None = None,
    is_quiet: bool = False,
) -> AsyncIterator[Town]:
    """`is_quiet`: nobody probes or tells much, so that days pass quickly."""
    tuning = QUIET if is_quiet else Tuning()
    memberships = [membership(signed(person("house 0")), ROOT)]
    for number in range(1, houses):
        roles: tuple[Role, ...] = (*PLAIN, "admin") if admin and number == 1 else PLAIN
        memberships.append(membership(signed(person(f"house {number}"), *roles)))
    async with (
        open_loopback_network(seed=7, weather=weather) as network,
        trio.open_nursery() as nursery,
    ):
        yield Town(network, nursery, folder, memberships, tuning)
        nursery.cancel_scope.cancel()


async def test_a_revocation_reaches_everybody_of_eight_within_ten_seconds(
    tmp_path: Path, autojump_clock: VirtualTime
) -> None:
    async with open_town(tmp_path) as town:
        await town.come(*range(8))
        await town.until_met()
        town.members[0].mesh.trust.revoke(town.peer(7), "a lost laptop")
        assert await town.seconds_until_out(7, within_s=10) < 1
        assert all(town.members[number].mesh.trust.book.roster_version == 1 for number in range(7))


async def test_a_revocation_by_an_admin_reaches_those_who_lose_every_third_word(
    tmp_path: Path, autojump_clock: VirtualTime
) -> None:
    weather = Weather(latency_s=0.05, jitter_s=0.1, gossip_loss=0.33)
    async with open_town(tmp_path, admin=True, weather=weather) as town:
        await town.come(*range(8))
        await town.until_met()
        town.members[1].mesh.trust.revoke(town.peer(7), "")
        await town.seconds_until_out(7, within_s=10)


async def test_who_was_away_hears_of_it_within_ten_seconds_of_coming_back(
    tmp_path: Path, autojump_clock: VirtualTime
) -> None:
    """And the one who revoked need not be there."""
    async with open_town(tmp_path) as town:
        await town.come(*range(8))
        await town.until_met()
        await town.go(5, 6)
        town.members[0].mesh.trust.revoke(town.peer(7), "")
        await town.seconds_until_out(7, within_s=10)
        await trio.sleep(120)
        await town.go(0)
        # They come back to the revoked one as well, which dials them at once.
        await town.come(5, 6)
        began = trio.current_time()
        with trio.fail_after(10):
            books = [town.members[number].mesh.trust.book for number in (5, 6)]
            while not all(book.roster_version for book in books):  # noqa: ASYNC110 as above
                await trio.sleep(0.01)
        await town.seconds_until_out(7, within_s=10 - (trio.current_time() - began))


async def test_two_halves_that_were_apart_put_together_what_each_had_revoked(
    tmp_path: Path, autojump_clock: VirtualTime
) -> None:
    async with open_town(tmp_path, admin=True) as town:
        await town.come(*range(8))
        await town.until_met()
        left, right = (0, 2, 4, 6), (1, 3, 5, 7)
        for one in left:
            for other in right:
                town.network.cut(town.peer(one), town.peer(other))
        await trio.sleep(30)
        town.members[0].mesh.trust.revoke(town.peer(7), "")
        town.members[1].mesh.trust.revoke(town.peer(6), "")
        await trio.sleep(30)
        for one in left:
            for other in right:
                town.network.mend(town.peer(one), town.peer(other))
        await town.seconds_until_out(6, within_s=60)
        await town.seconds_until_out(7, within_s=60)
        rosters = [town.members[number].mesh.trust.book.roster for number in range(6)]
        assert all(set(r.revocations) == set(rosters[0].revocations) for r in rosters)


async def test_who_was_put_out_is_told_so_and_may_come_back_with_a_new_invite(
    tmp_path: Path, autojump_clock: VirtualTime
) -> None:
    async with open_town(tmp_path, 4) as town:
        await town.come(*range(4))
        await town.until_met()
        town.members[0].mesh.trust.revoke(town.peer(3), "")
        await town.seconds_until_out(3, within_s=10)
        assert town.members[3].mesh.trust.is_revoked
        await town.go(3)
        book = town.members[0].mesh.trust.book
        epoch = book.next_epoch(town.peer(3))
        assert epoch == 1
        again = signed(person("house 3"), *PLAIN, now_unix_s=int(town.unix()), epoch=epoch)
        town.memberships[3] = membership(again)
        (tmp_path / "3-roster.json").unlink()
        await town.come(3)
        await town.until_met()


async def test_a_roster_is_told_again_every_minute(
    tmp_path: Path, autojump_clock: VirtualTime
) -> None:
    """For those whom no gossip reached: nobody else would know that they missed something."""
    async with open_town(tmp_path, 3) as town:
        await town.come(0, 1, 2)
        await town.until_met()
        town.network.weather = Weather(gossip_loss=1.0)
        town.members[0].mesh.trust.revoke(person("somebody").peer, "")
        await trio.sleep(5)
        assert town.members[1].mesh.trust.book.roster_version == 0
        town.network.weather = Weather()
        await trio.sleep(ANNOUNCE_S)
        assert town.members[1].mesh.trust.book.roster_version == 1
        assert town.members[2].mesh.trust.book.roster_version == 1


async def test_a_full_roster_goes_in_portions_that_fit_gossip() -> None:
    admin = Admin(person("admin"), signed(person("admin")))
    full = Roster(
        revocations=tuple(
            revoke(admin, person(f"{n}").peer, epoch=2**40, now_unix_s=NOW, why="x" * 200)
            for n in range(MEMBERS_MAX)
        )
    )
    parts = portions(full)
    assert all(len(codec.encode(part)) <= GOSSIP_BYTES_MAX for part in parts)
    assert tuple(one for part in parts for one in part.revocations) == full.revocations
    assert portions(Roster()) == []
