"""What an owner does with trust, on real nodes: join, invite, revoke, join again, leave."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from kowalski.node.local_cluster import LocalNode
from tests.integration.cluster import START_S, Cluster, Ended, open_cluster, wait_until

pytestmark = pytest.mark.real

OPTIONS = ("--no-mdns", "--no-repl")
REVOKED_S = 10.0
"""Within which every node has to know; measured: a twentieth of a second."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with open_cluster(tmp_path_factory.mktemp("trust")) as cluster:
        cluster.start("home", *OPTIONS).wait_until_up(START_S)
        yield cluster


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    yield shared
    sys.stdout.write(shared.logs())


def own(cluster: Cluster, name: str, *arguments: str, stdin: bytes = b"") -> Ended:
    """A command about the files of a node, which need not run."""
    where = ("--data-dir", str(cluster.folder / name))
    return cluster.cli(None, *arguments, *where, stdin=stdin)


def identity_of(cluster: Cluster, name: str) -> dict[str, Any]:
    shown: dict[str, Any] = own(cluster, name, "identity", "show", "--json").result
    return shown


def row_of(node: LocalNode, peer: str) -> dict[str, Any]:
    rows = node.ask("peers")["peers"]
    assert isinstance(rows, list)
    return next((row for row in rows if row["peer"] == peer), {})


def start(cluster: Cluster, name: str) -> LocalNode:
    """As its owner would, who knows nothing of addresses: the line, or the last run, told them."""
    home = cluster.named("home")
    addresses = home.ask("status")["addresses"]
    assert isinstance(addresses, list)
    node = cluster.start(name, *OPTIONS, "--peer", f"{addresses[0]}/p2p/{home.peer}")
    node.wait_until_up(START_S)
    return node


def test_a_device_joins_before_it_is_a_node_and_is_let_in_when_it_is_one(cluster: Cluster) -> None:
    home = cluster.named("home")
    line = home.invite(uses=1)
    joined = own(cluster, "lap", "join", "-", stdin=line.encode())
    assert joined.exit_code == 0, joined.stderr
    assert "now: kowalski-node start" in joined.stderr
    spent = own(cluster, "lap", "join", line)
    assert (spent.exit_code, "ask for a new one" in spent.stderr) == (2, True)
    founder = own(cluster, "lap", "identity", "export-root", str(cluster.folder / "none"))
    assert founder.exit_code == 2

    lap = start(cluster, "lap")
    cluster.wait_until_met(START_S)
    row = row_of(home, lap.peer)
    assert (row["state"], row["is_admin"]) == ("member", False)
    assert row["certificate_ends_in_s"] > 100 * 24 * 3600
    refused = cluster.cli(lap, "invite")
    assert refused.exit_code == 4
    assert "home" in refused.stderr
    assert cluster.cli(lap, "revoke", "home").exit_code == 4
    running = own(cluster, "lap", "join", line)
    assert (running.exit_code, "stop it first" in running.stderr) == (2, True)


def test_a_revoked_member_is_out_at_once_and_back_with_a_new_invite(cluster: Cluster) -> None:
    home, lap = cluster.named("home"), cluster.named("lap")
    assert cluster.cli(home, "revoke", "nobody-of-this-name").exit_code == 2
    assert cluster.cli(home, "revoke", lap.peer[-3:]).exit_code == 2
    gone = cluster.cli(home, "revoke", "lap", "--why", "left in a train")
    assert gone.exit_code == 0, gone.stderr
    wait_until(lambda: bool(lap.ask("status")["is_revoked"]), "it is told", REVOKED_S)
    assert home.members() == {home.peer}
    (pending,) = cluster.cli(home, "peers", "--pending", "--json").result["peers"]
    assert pending["peer"] == lap.peer
    assert "revoked" in pending["why_not"]
    assert "this node was revoked" in cluster.cli(lap, "doctor").stdout

    assert lap.stop() == 0
    assert "revoked" in identity_of(cluster, "lap")["problem"]
    back = own(cluster, "lap", "join", home.invite(uses=1))
    assert back.exit_code == 0, back.stderr
    assert identity_of(cluster, "lap")["problem"] == ""
    start(cluster, "lap")
    cluster.wait_until_met(START_S + 60)


def test_leaving_stops_the_node_and_forgets_the_mesh(cluster: Cluster) -> None:
    lap = cluster.named("lap")
    left = own(cluster, "lap", "leave", "--yes")
    assert left.exit_code == 0, left.stderr
    assert lap.process.wait(10) == 0
    assert not (lap.data_dir / "mesh.json").exists()
    shown = identity_of(cluster, "lap")
    assert (shown["peer"], shown["mesh"]) == (lap.peer, None)


def test_the_founder_lives_on_in_its_backup(cluster: Cluster) -> None:
    """Its device is lost; another one becomes what it was, for those who knew it."""
    home = cluster.named("home")
    backup = str(cluster.folder / "root.key")
    assert own(cluster, "home", "identity", "export-root", backup).exit_code == 0
    guest = cluster.start("guest", *OPTIONS, "--join", home.invite(uses=1))
    guest.wait_until_up(START_S)
    home.kill()

    taken = own(cluster, "heir", "identity", "import-root", backup)
    assert taken.exit_code == 0, taken.stderr
    addresses = json.loads(json.dumps(guest.ask("status")["addresses"]))
    heir = cluster.start("heir", *OPTIONS, "--peer", f"{addresses[0]}/p2p/{guest.peer}")
    heir.wait_until_up(START_S)
    wait_until(lambda: guest.peer in heir.members(), "the guest is a member for its heir")
    assert cluster.cli(heir, "invite", "--roles", "repl,admin").exit_code == 0
    assert cluster.cli(heir, "revoke", "guest").exit_code == 0
    wait_until(lambda: heir.members() == {heir.peer}, "it is put out", REVOKED_S)
