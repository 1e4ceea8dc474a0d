"""Trust between real processes: joining, revoking, other meshes, roles, and a certificate's end."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from kowalski.mesh.identity import load_or_create_identity
from kowalski.mesh.membership_certificates import (
    CERTIFICATE_LIFE_S,
    Membership,
    certify,
    found_mesh,
    save_membership,
)
from kowalski.node.local_cluster import LocalNode
from tests.integration.cluster import START_S, open_cluster, wait_until, whole_log

pytestmark = pytest.mark.real

BARE = ("--no-repl", "--no-mdns")


def address_of(node: LocalNode) -> str:
    addresses = node.ask("status")["addresses"]
    assert isinstance(addresses, list)
    return f"{addresses[0]}/p2p/{node.peer}"


def test_a_guest_with_a_line_is_in_and_everybody_knows(tmp_path: Path) -> None:
    with open_cluster(tmp_path) as cluster:
        founder = cluster.start("founder", *BARE)
        founder.wait_until_up(START_S)
        guest = cluster.start("guest", *BARE, "--join", founder.invite(uses=1))
        guest.wait_until_up(START_S)
        wait_until(lambda: founder.peer in guest.members(), "the guest is in")
        wait_until(lambda: guest.peer in founder.members(), "both know")


def test_a_revoked_member_is_out_everywhere(tmp_path: Path) -> None:
    with open_cluster(tmp_path) as cluster:
        names = ("founder", "second", "third", "lost")
        founder, second, third, lost = cluster.form(dict.fromkeys(names, BARE))
        done = cluster.cli(founder, "revoke", "--json", lost.peer)
        assert done.exit_code == 0, done.stderr
        for node in (founder, second, third):
            wait_until(lambda node=node: lost.peer not in node.members(), "it is out")
            assert node.ask("status")["roster_version"] == 1
        wait_until(lambda: lost.ask("status")["connections"] == 0, "all have hung up")
        # It hears so itself, or is told when it asks again.
        wait_until(lambda: "revoked" in whole_log(lost), "the lost one knows", 30)


def test_two_meshes_on_one_network_do_not_even_dial_each_other(tmp_path: Path) -> None:
    with open_cluster(tmp_path) as cluster:
        ours, theirs = cluster.start("ours", "--no-repl"), cluster.start("theirs", "--no-repl")
        ours.wait_until_up(START_S)
        theirs.wait_until_up(START_S)
        # Somebody of ours is found in this time, so the other two have been heard of as well.
        cluster.start("guest", "--no-repl", "--join", ours.invite(uses=1)).wait_until_up(START_S)
        guest = cluster.named("guest")
        wait_until(lambda: guest.peer in ours.members(), "the guest is found")
        for node, other in ((ours, theirs), (theirs, ours), (guest, theirs)):
            status = node.ask("status")
            assert status["refused"] == {}
            rows = node.ask("peers")["peers"]
            assert isinstance(rows, list)
            assert all(row["state"] != "member" for row in rows if row["peer"] == other.peer)
            assert "hang-up" not in whole_log(node)
        assert theirs.ask("status")["connections"] == 0
        assert ours.ask("status")["connections"] == 1


def test_roles_are_enforced_on_who_asks_from_a_terminal(tmp_path: Path) -> None:
    with open_cluster(tmp_path) as cluster:
        founder = cluster.start("founder", "--no-mdns")
        founder.wait_until_up(START_S)
        invite = cluster.cli(founder, "invite", "--json", "--roles", "infer")
        assert invite.exit_code == 0, invite.stderr
        cluster.start("guest", *BARE, "--join", invite.result["line"]).wait_until_up(START_S)
        guest = cluster.named("guest")
        wait_until(lambda: founder.peer in guest.members(), "they have met")
        done = cluster.cli(guest, "run", "--json", "--language", "python", "--code", "print(1)")
        assert done.exit_code == 4, done.stdout + done.stderr
        assert founder.ask("status")["refused"] == {"not_allowed": 1}
        done = cluster.cli(guest, "revoke", "--json", founder.peer)
        assert done.exit_code == 4, done.stdout + done.stderr


def test_a_node_whose_certificate_has_ended_starts_and_says_so(tmp_path: Path) -> None:
    with open_cluster(tmp_path) as cluster:
        data_dir = cluster.folder / "late"
        data_dir.mkdir(mode=0o700)
        identity = load_or_create_identity(data_dir / "identity.key")
        then = int(time.time()) - CERTIFICATE_LIFE_S - 86400
        root = found_mesh(identity.peer, now_unix_s=then).root
        assert root is not None
        ended = certify(root, identity.peer, ("submit", "infer"), now_unix_s=then)
        save_membership(data_dir / "mesh.json", Membership(root.mesh, ended, None))
        node = cluster.start("late", *BARE)
        node.wait_until_up(START_S)
        wait_until(lambda: "certificate-not-renewed" in whole_log(node), "it says what to do")
        assert "certificate-has-ended" in whole_log(node)
        left_s = node.ask("status")["certificate_ends_in_s"]
        assert isinstance(left_s, float)
        assert left_s < -86000
        assert json.loads((data_dir / "mesh.json").read_text())["mesh"] == root.mesh
