"""A data directory that was copied to another machine is noticed, there and by third parties."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kowalski.node.local_cluster import LocalNode
from tests.integration.cluster import (
    START_S,
    Cluster,
    entering,
    open_cluster,
    wait_until,
    whole_log,
)
from tests.netns import Machine, lan, missing

WHY_NOT = missing()
pytestmark = [
    pytest.mark.real,
    pytest.mark.netns,
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]

NOT_COPIED = shutil.ignore_patterns("run", "node.log", "node.lock", "ledger.*")


@pytest.fixture
def machines() -> Iterator[list[Machine]]:
    with lan(3) as machines:
        yield machines


@pytest.fixture
def cluster(tmp_path: Path, machines: list[Machine]) -> Iterator[Cluster]:
    with open_cluster(tmp_path) as cluster:
        yield cluster


def warnings_of(node: LocalNode) -> str:
    warnings = node.ask("status")["warnings"]
    assert isinstance(warnings, list)
    return " | ".join(warnings)


def row_of(node: LocalNode, peer: str) -> dict[str, object]:
    rows = node.ask("peers")["peers"]
    assert isinstance(rows, list)
    return next((row for row in rows if row["peer"] == peer), {})


def test_a_copied_home_is_noticed_by_both_owners_and_by_a_third(
    cluster: Cluster, machines: list[Machine]
) -> None:
    at_home, at_copy, elsewhere = machines
    home = cluster.start("home", "--no-repl", prefix=entering(at_home))
    home.wait_until_up(START_S)
    line = home.invite(uses=1)
    third = cluster.start("third", "--no-repl", "--join", line, prefix=entering(elsewhere))
    cluster.wait_until_met(START_S)
    assert not warnings_of(home)
    assert not warnings_of(third)

    shutil.copytree(home.data_dir, cluster.folder / "copy", ignore=NOT_COPIED)
    copy = cluster.start("copy", "--no-repl", prefix=entering(at_copy))
    copy.wait_until_up(START_S)
    assert copy.peer == home.peer
    wait_until(lambda: at_copy.ip in warnings_of(home), "the first owner is told")
    wait_until(lambda: at_home.ip in warnings_of(copy), "the second owner is told")
    wait_until(lambda: at_copy.ip in warnings_of(third), "the third owner is told")
    assert "two machines use its identity" in str(row_of(third, home.peer)["why_not"])
    for told in (home, copy, third):
        assert "kowalski-node identity rotate" in warnings_of(told)
        assert whole_log(told).count("identity-used-twice") == 1

    # What the words say is done: the copy becomes a peer of its own.
    assert copy.stop() == 0
    where = ("--data-dir", str(copy.data_dir))
    assert cluster.cli(None, "identity", "rotate", "--yes", *where).exit_code == 0
    again = cluster.start("copy", "--no-repl", prefix=entering(at_copy))
    again.wait_until_up(START_S)
    cluster.wait_until_met(START_S)
    assert again.peer != home.peer
    assert not warnings_of(again)
