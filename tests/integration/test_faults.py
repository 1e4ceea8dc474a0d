"""What machines on one LAN make of a fault of one of them: when it is noticed, and when it heals.

Three nodes, each in a network namespace on one bridge. Two planes are watched, as `peers` tells
them: whether a node would send work to another (`routable`), and what the mesh thinks of it
(`membership`). The bounds are for a busy machine; `python -m benchmarks.membership` measures.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from kowalski.node.local_cluster import LocalNode
from tests.integration.cluster import START_S, Cluster, entering, open_cluster, wait_until
from tests.netns import Machine, lan, missing

WHY_NOT = missing()
pytestmark = [
    pytest.mark.real,
    pytest.mark.netns,
    pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or ""),
    pytest.mark.timeout(240),
]

OPTIONS = ("--roles", "submit,fold", "--no-http", "--log-format", "json")

CLOSED_S = 10.0
"""Until a closed connection is noticed; 0.3 s is the goal."""
SILENT_S = 20.0
"""Until a machine that says nothing any more is sent no work; 2 s is the goal."""
FAILED_S = 40.0
"""Until the mesh has given it up; 5 s is the goal."""
BACK_S = 60.0


@dataclass(frozen=True)
class Home:
    machines: dict[str, Machine]
    cluster: Cluster

    def node(self, name: str) -> LocalNode:
        return self.cluster.named(name)

    def start(self, name: str, *options: str) -> None:
        self.cluster.start(name, *OPTIONS, *options, prefix=entering(self.machines[name]))

    def row(self, observer: str, about: str) -> dict[str, Any]:
        rows = self.node(observer).ask("peers")["peers"]
        assert isinstance(rows, list)
        return next(row for row in rows if row["peer"] == self.node(about).peer)

    def until(
        self, what: str, holds: Callable[[dict[str, Any]], bool], pairs: set[str], within_s: float
    ) -> None:
        """Wait until all rows of `pairs`, each an observer and whom it observes, are so."""
        for pair in sorted(pairs):
            observer, about = tuple(pair)
            wait_until(
                lambda: holds(self.row(observer, about)),  # noqa: B023 it is called here
                f"{observer} has {about} {what}",
                within_s,
            )

    def until_unroutable(self, *pairs: str, within_s: float) -> None:
        self.until("unroutable", lambda row: not row["routable"], set(pairs), within_s)

    def until_failed(self, *pairs: str) -> None:
        self.until("failed", lambda row: row["membership"] == "failed", set(pairs), FAILED_S)

    def until_back(self, *pairs: str) -> None:
        def is_back(row: dict[str, Any]) -> bool:
            return bool(row["routable"]) and row["membership"] == "alive"

        self.until("back", is_back, set(pairs) or ALL_PAIRS, BACK_S)

    def lines(self, name: str, event: str) -> list[dict[str, Any]]:
        """What the node said of one kind of event, over its life."""
        text = (self.node(name).data_dir / "node.log").read_text(errors="replace")
        found = (json.loads(line) for line in text.splitlines() if line.startswith("{"))
        return [line for line in found if line["event"] == event]

    def given_up(self) -> dict[str, set[str]]:
        """By node, whom it has ever thought failed."""
        names = {node.peer: node.name for node in self.cluster.nodes}
        return {
            name: {
                names[line["peer"]]
                for line in self.lines(name, "member-changed")
                if line["state"] == "failed"
            }
            for name in self.machines
        }


ALL_PAIRS = {"ab", "ac", "ba", "bc", "ca", "cb"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with contextlib.ExitStack() as stack:
        machines = dict(zip("abc", stack.enter_context(lan(3)), strict=True))
        cluster = stack.enter_context(open_cluster(tmp_path_factory.mktemp("faults")))
        home = Home(machines, cluster)
        home.start("a")
        home.node("a").wait_until_up(START_S)
        line = home.node("a").invite(uses=2)
        home.start("b", "--join", line)
        home.start("c", "--join", line)
        cluster.wait_until_met(START_S)
        yield home


@pytest.fixture
def home(shared: Home) -> Iterator[Home]:
    """All three are well, and what they wrote in earlier tests is forgotten."""
    shared.until_back()
    for node in shared.cluster.nodes:
        (node.data_dir / "node.log").write_text("")
    try:
        yield shared
    finally:
        sys.stdout.write(shared.cluster.logs())


@dataclass(slots=True)
class Laps:
    """Seconds since the fault; `pytest -rP` shows them."""

    began: float = 0.0

    def begin(self) -> None:
        self.began = time.monotonic()

    def note(self, what: str) -> None:
        sys.stdout.write(f"{what} after {time.monotonic() - self.began:.2f} s\n")


@pytest.fixture
def laps() -> Laps:
    return Laps()


def test_a_killed_node_is_missed_at_once_given_up_and_taken_back(home: Home, laps: Laps) -> None:
    before = home.row("a", "c")["incarnation"]
    laps.begin()
    home.node("c").kill()
    home.until_unroutable("ac", "bc", within_s=CLOSED_S)
    laps.note("unroutable")
    home.until_failed("ac", "bc")
    laps.note("failed")
    assert home.given_up() == {"a": {"c"}, "b": {"c"}, "c": set()}
    laps.begin()
    home.start("c")
    home.node("c").wait_until_up(START_S)
    home.until_back()
    laps.note("back")
    assert home.row("a", "c")["incarnation"] > before


def test_a_stopped_process_is_given_up_and_on_its_return_blames_nobody(
    home: Home, laps: Laps
) -> None:
    before = home.row("a", "c")["incarnation"]
    laps.begin()
    home.node("c").process.send_signal(signal.SIGSTOP)
    try:
        home.until_unroutable("ac", "bc", within_s=SILENT_S)
        laps.note("unroutable")
        home.until_failed("ac", "bc")
        laps.note("failed")
    finally:
        home.node("c").process.send_signal(signal.SIGCONT)
        laps.begin()
    home.until_back()
    laps.note("back")
    assert home.row("a", "c")["incarnation"] > before, "it has contradicted"
    assert home.given_up() == {"a": {"c"}, "b": {"c"}, "c": set()}


def test_a_pulled_cable_is_noticed_on_both_ends_and_heals_when_it_is_back(
    home: Home, laps: Laps
) -> None:
    laps.begin()
    home.machines["c"].cut()
    try:
        home.until_unroutable("ac", "bc", "ca", "cb", within_s=SILENT_S)
        laps.note("unroutable")
        home.until_failed("ac", "bc")
        laps.note("failed")
        wait_until(lambda: home.lines("c", "partition-suspected") != [], "c doubts its own link")
    finally:
        home.machines["c"].mend()
        laps.begin()
    home.until_back()
    laps.note("back")
    given_up = home.given_up()
    assert (given_up["a"], given_up["b"]) == ({"c"}, {"c"})


def test_a_link_that_loses_one_direction_costs_nobody_the_membership(
    home: Home, laps: Laps
) -> None:
    laps.begin()
    home.machines["a"].lose_what_is_sent_to(home.machines["b"])
    try:
        home.until_unroutable("ab", "ba", within_s=SILENT_S)
        laps.note("unroutable")
        home.until("hung up", lambda row: row["state"] != "member", {"ab"}, FAILED_S)
        for pair in ("ac", "bc", "ca", "cb"):
            assert home.row(*pair)["routable"], pair
    finally:
        home.machines["a"].find_again(home.machines["b"])
        laps.begin()
    home.until_back()
    laps.note("back")
    assert home.given_up() == {"a": set(), "b": set(), "c": set()}, "c has reached both"


def test_a_node_that_gets_another_address_is_found_there(home: Home, laps: Laps) -> None:
    laps.begin()
    home.machines["c"].move("10.77.0.33")
    home.until_unroutable("ac", "bc", within_s=SILENT_S)
    laps.note("unroutable")
    home.until_back()
    laps.note("back")
    new = "/ip4/10.77.0.33/tcp/4170"
    home.until("at its address", lambda row: new in row["addresses"], {"ac", "bc"}, BACK_S)
