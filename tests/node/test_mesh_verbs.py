"""Who may invite and revoke, and by which names, on whole nodes under virtual time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from kowalski.mesh.core.connectivity import MembershipRefused
from kowalski.mesh.identity import new_identity
from kowalski.node import verbs
from kowalski.node.mesh_verbs import MeshVerbs, warnings_of
from kowalski.protocol import join_line
from kowalski.protocol.errors import ConfigError, RequestRefusedError
from kowalski.protocol.ids import Address
from simulations.virtual_time import JumpingClock
from simulations.world import UNIX_EPOCH_S, open_world

pytestmark = pytest.mark.trio

THERE = (Address("/ip4/192.0.2.2/tcp/4170"),)


def verbs_of(node: verbs.Node) -> MeshVerbs:
    return MeshVerbs(node.mesh, node.invites, lambda: UNIX_EPOCH_S)


async def until(holds: Callable[[], bool]) -> None:
    """Of virtual time: 10 s at most."""
    with trio.fail_after(10):
        while not holds():  # noqa: ASYNC110 nobody tells
            await trio.sleep(0.05)


async def silent(_event: dict[str, object]) -> None:
    await trio.lowlevel.checkpoint()


async def test_an_invite_grants_all_but_admin_unless_it_says_so(virtual_time: JumpingClock) -> None:
    async with open_world(1) as world:
        mesh_verbs = verbs_of(world[0])
        plain = await mesh_verbs.invite({}, silent)
        assert "admin" not in join_line.parse(str(plain["line"])).roles
        admin = await mesh_verbs.invite({"roles": ["repl", "admin"]}, silent)
        assert join_line.parse(str(admin["line"])).roles == ("repl", "admin")


async def test_a_member_neither_invites_nor_revokes(virtual_time: JumpingClock) -> None:
    async with open_world(2) as world:
        member = verbs_of(world[1])
        for verb, request in ((member.invite, {}), (member.revoke, {"peer": "node-0"})):
            with pytest.raises(RequestRefusedError, match="founded the mesh") as no:
                await verb(dict(request), silent)
            assert no.value.reason == "not_allowed"
        assert world[0].mesh.trust.book.roster_version == 0


@pytest.mark.parametrize("name", ["name", "id", "ending", "dotted ending"])
async def test_a_member_is_revoked_by_any_of_its_names(
    virtual_time: JumpingClock, name: str
) -> None:
    async with open_world(3) as world:
        peer = world[1].mesh.me
        wanted = {"name": "node-1", "id": peer, "ending": peer[-6:]}
        wanted["dotted ending"] = f"..{peer[-8:]}"
        done = await verbs_of(world[0]).revoke({"peer": wanted[name]}, silent)
        assert (done["peer"], done["name"]) == (peer, "node-1")
        await until(lambda: not world[2].mesh.is_member(peer) and not world[0].mesh.is_member(peer))


async def test_nobody_is_revoked_by_a_slip(virtual_time: JumpingClock) -> None:
    async with open_world(2) as world:
        mesh_verbs = verbs_of(world[0])
        peer = world[1].mesh.me
        for slip in ("nobody", "x", "..", "node", peer[-3:], peer[1:] + "x", peer[:-1]):
            with pytest.raises(ConfigError):
                await mesh_verbs.revoke({"peer": slip}, silent)
        assert world[0].mesh.trust.book.roster_version == 0


async def test_a_device_that_is_away_is_revoked_by_its_whole_id(virtual_time: JumpingClock) -> None:
    """A stolen one will not come by to be found by name."""
    async with open_world(1) as world:
        lost = new_identity().peer
        await verbs_of(world[0]).revoke({"peer": lost}, silent)
        assert world[0].mesh.trust.book.roster_version == 1


async def test_peers_tell_when_certificates_end(virtual_time: JumpingClock) -> None:
    async with open_world(2) as world:
        rows = (await verbs_of(world[0]).peers({}, silent))["peers"]
        assert isinstance(rows, list)
        assert [row["state"] for row in rows] == ["member", "member"]
        for row in rows:
            assert row["certificate_ends_in_s"] == pytest.approx(180 * 24 * 3600)
            assert row["is_admin"] is False


async def test_twins_and_refusals_are_warned_of(virtual_time: JumpingClock) -> None:
    async with open_world(2) as world:
        mesh, other = world[0].mesh, world[1].mesh.me
        assert warnings_of(mesh) == []
        mesh.twins.announced(THERE)
        mesh._connections.handle(MembershipRefused(other, "it refuses us: revoked"))
        await until(lambda: len(warnings_of(mesh)) == 2)
        found = warnings_of(mesh)
        assert "192.0.2.2" in found[0]
        assert found[1] == "node-1 refuses this node: revoked"
