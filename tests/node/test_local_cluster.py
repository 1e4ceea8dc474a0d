"""Real nodes on loopback, as the demonstration starts them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kowalski.node.local_cluster import LocalCluster, NodeTroubleError

pytestmark = pytest.mark.real

START_S = 60.0


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCluster]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    cluster = LocalCluster(tmp_path / "nodes")
    yield cluster
    cluster.stop()


def test_nodes_meet_and_are_counted_out_when_one_is_killed(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A node that heard of this would refuse to start.
    monkeypatch.setenv("KOWALSKI_NOSUCH_SETTING", "the owner's business")
    first = cluster.start("first")
    first.wait_until_up(START_S)
    second = cluster.start("second", "--join", first.invite(uses=1))
    cluster.wait_until_met(START_S)
    assert first.members() == second.members() == {first.peer, second.peer}
    assert cluster.named("second") is second

    second.kill()
    assert second.process.returncode == -9
    cluster.nodes.remove(second)
    cluster.wait_until_met(START_S)
    assert first.stop() == 0
    assert first.stop() == 0


def test_a_node_that_cannot_start_is_told_with_the_end_of_its_log(cluster: LocalCluster) -> None:
    node = cluster.start("mistaken", "--join", "kw1:nothing")
    with pytest.raises(NodeTroubleError, match="mistaken did not come up") as told:
        node.wait_until_up(START_S)
    assert "join line" in str(told.value)
    assert node.stop() == 2


def test_nodes_that_do_not_meet_are_not_waited_for_for_ever(cluster: LocalCluster) -> None:
    cluster.start("one", "--no-repl")
    cluster.start("other", "--no-repl")
    for node in cluster.nodes:
        node.wait_until_up(START_S)
    with pytest.raises(NodeTroubleError, match=r"did not find each other within 0\.5 s"):
        cluster.wait_until_met(timeout_s=0.5)
