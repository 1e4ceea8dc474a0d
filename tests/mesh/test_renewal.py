"""Certificates that renew themselves, and what happens where nobody can: years of virtual time."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from kowalski.mesh.admission import renew
from kowalski.mesh.conversation import Conversation, open_asker, serve
from kowalski.mesh.core.renewal import CERTIFICATE_LIFE_S, SPREAD_S
from kowalski.mesh.loopback_transport import open_loopback_network
from kowalski.mesh.membership_certificates import CertificateError, decode_certificate
from kowalski.mesh.renewal import LOOK_S
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.membership import RoundTrip
from kowalski.protocol.messages.trust import Certificate, JoinGranted, SignedCertificate
from tests.mesh.test_roster_gossip import Town, open_town
from tests.mesh.visitors import NOW, person, signed
from tests.mesh.wires import eventually

pytestmark = pytest.mark.trio
VirtualTime = trio.testing.MockClock

THIRD_S = CERTIFICATE_LIFE_S // 3 + SPREAD_S + 600


def certificate(town: Town, number: int) -> Certificate:
    return decode_certificate(town.memberships[number].certificate.frame)


def days_left(town: Town, number: int) -> float:
    return (certificate(town, number).not_after_unix_s - town.unix()) / 86400


async def ask_each_other(town: Town) -> None:
    for one in town.members.values():
        for other in town.members.values():
            await one.mesh.request(
                other.peer, "/kowalski/repl/1", RoundTrip(), RoundTrip, timeout_s=5
            )


async def later(town: Town, seconds: float) -> None:
    """The clock on the wall moves on; nobody was switched on meanwhile."""
    running = tuple(town.members)
    await town.go(*running)
    town.offset_s += seconds


async def test_who_is_with_an_admin_when_it_is_due_is_renewed_with_the_same_rights(
    tmp_path: Path, autojump_clock: VirtualTime
) -> None:
    async with open_town(tmp_path, 4, is_quiet=True) as town:
        before = [certificate(town, number) for number in range(4)]
        await later(town, THIRD_S)
        await town.come(0, 1, 2, 3)
        await eventually(lambda: all(days_left(town, n) > 179 for n in range(4)), within_s=60)
        for number in range(4):
            after = certificate(town, number)
            assert (after.roles, after.epoch) == (before[number].roles, before[number].epoch)
        # The others know the new ones, without a new connection.
        for member in town.members.values():
            for number in range(4):
                known = member.mesh.trust.book.certificate(town.peer(number))
                await eventually(
                    lambda known=known, member=member, number=number: (
                        member.mesh.trust.book.certificate(town.peer(number))
                        == certificate(town, number)
                    ),
                    within_s=60,
                )
        await ask_each_other(town)


async def test_an_admin_renews_members_where_the_root_is_away(
    tmp_path: Path, autojump_clock: VirtualTime
) -> None:
    async with open_town(tmp_path, 4, admin=True, is_quiet=True) as town:
        await later(town, THIRD_S)
        await town.come(1, 2, 3)
        await eventually(lambda: all(days_left(town, n) > 179 for n in (2, 3)), within_s=60)
        assert town.memberships[2].certificate.issuer is not None
        # Only the root makes admins, so this one waits, and keeps its role.
        assert days_left(town, 1) < 125
        assert "admin" in certificate(town, 1).roles
        await town.come(0)
        await eventually(lambda: days_left(town, 1) > 179, within_s=700)
        assert "admin" in certificate(town, 1).roles
        assert town.memberships[1].certificate.issuer is None


async def test_nobody_renews_while_no_admin_is_up(
    tmp_path: Path, autojump_clock: VirtualTime
) -> None:
    async with open_town(tmp_path, 4, is_quiet=True) as town:
        await later(town, THIRD_S)
        await town.come(1, 2, 3)
        await town.until_met()
        await trio.sleep(3600)
        assert all(days_left(town, number) < 125 for number in (1, 2, 3))


async def test_an_ended_mesh_without_an_admin_goes_on_and_says_what_to_do(
    tmp_path: Path, autojump_clock: VirtualTime
) -> None:
    async with open_town(tmp_path, 4, is_quiet=True) as town:
        await later(town, 2 * CERTIFICATE_LIFE_S)
        with capture_logs() as logs:
            await town.come(1, 2, 3)
            await town.until_met()
            await ask_each_other(town)
            await trio.sleep(3600)
        told = [log for log in logs if log["event"] == "certificate-not-renewed"]
        assert len(told) == 3  # each once a day, not at each look
        assert all("start the node that founded the mesh" in log["cure"] for log in told)
        assert all(log["days_left"] < -100 for log in told)
        # The founder comes back: all is as before, without a word from anybody.
        await town.come(0)
        await eventually(lambda: all(days_left(town, n) > 179 for n in range(4)), within_s=60)
        await town.until_met()
        await trio.sleep(1)
        await ask_each_other(town)


async def test_a_life_of_two_years_on_open_connections(
    tmp_path: Path, autojump_clock: VirtualTime
) -> None:
    async with open_town(tmp_path, 3, is_quiet=True) as town:
        await town.come(0, 1, 2)
        await town.until_met()
        for _ in range(24):
            # A month at a time by the wall, a look by the loop.
            town.offset_s += 30 * 86400
            await trio.sleep(LOOK_S + 10)
            await ask_each_other(town)
            assert all(days_left(town, number) > 80 for number in range(3))
        assert not any(member.mesh.trust.refused for member in town.members.values())


@pytest.mark.parametrize(
    ("granted", "reason"),
    [
        (signed(person("us"), "submit", "repl", now_unix_s=NOW + 9), "other_roles"),
        (signed(person("us"), "submit", now_unix_s=NOW - 9), "older"),
        (signed(person("us"), "submit"), "older"),
        (signed(person("another"), "submit", now_unix_s=NOW + 9), "wrong_peer"),
    ],
    ids=["with other roles", "older", "the same", "somebody else's"],
)
async def test_what_an_admin_grants_is_taken_only_if_it_is_ours_and_newer(
    granted: SignedCertificate, reason: str, autojump_clock: VirtualTime
) -> None:
    ours = decode_certificate(signed(person("us"), "submit").frame)

    async def grant(_asking: Conversation, _request: Message) -> Message:
        await trio.lowlevel.checkpoint()
        return JoinGranted(certificate=granted)

    admin = person("admin").peer
    async with (
        open_loopback_network() as network,
        network.transport(ours.peer) as near,
        network.transport(admin) as far,
        open_asker(near) as asker,
    ):
        serve(far, "/kowalski/join/1", grant)
        await near.connect(admin, far.addresses[0], timeout_s=5)
        with pytest.raises(CertificateError) as caught:
            await renew(ours, admin, asker, unix_clock=lambda: NOW)
        assert caught.value.reason == reason
