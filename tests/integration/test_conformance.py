"""What the simulator says of a home of three is what three real processes do.

Each process is in a network namespace of its own; where these cannot be made, on loopback, and the
scripts that pull a cable are skipped. `make conformance` tells more of them than `make test`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from kowalski.node.control_client import NodeGoneError, NodeNotRunningError
from kowalski.node.local_cluster import LocalNode
from simulations.conformance import (
    LOOK_S,
    MORE_SCRIPTS,
    REQUEST,
    SCRIPTS,
    Onlooker,
    Roles,
    Script,
    broken_bounds,
    simulated,
)
from tests.integration.cluster import (
    START_S,
    Cluster,
    entering,
    open_cluster,
    wait_until,
)
from tests.netns import Machine, lan, missing

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

SLACK_S = 15.0
"""What a machine with much else to do may add to when something is noticed."""


TOLD = (*SCRIPTS, *MORE_SCRIPTS) if os.environ.get("CONFORMANCE") == "all" else SCRIPTS


@dataclass(frozen=True)
class Home:
    roles: Roles
    cluster: Cluster
    machines: Mapping[str, Machine]
    """Empty on loopback."""

    def start(self, name: str, *options: str) -> LocalNode:
        roles = ",".join(self.roles[name])
        return self.cluster.start(
            name, "--roles", roles, *options, prefix=entering(self.machines.get(name))
        )

    def befall(self, what: str, name: str) -> None:
        match what:
            case "killed":
                self.cluster.named(name).kill()
            case "stopped":
                self.cluster.named(name).process.send_signal(signal.SIGSTOP)
            case _:
                self.machines[name].cut()

    def undo(self, what: str, name: str) -> None:
        match what:
            case "killed":
                self.start(name)
            case "stopped":
                self.cluster.named(name).process.send_signal(signal.SIGCONT)
            case _:
                self.machines[name].mend()


@pytest.fixture(scope="module")
def home(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Home]:
    roles: Roles = request.param
    with contextlib.ExitStack() as stack:
        found = [] if missing() else stack.enter_context(lan(len(roles)))
        cluster = stack.enter_context(open_cluster(tmp_path_factory.mktemp("conformance")))
        home = Home(roles, cluster, dict(zip(roles, found, strict=False)))
        home.start("a").wait_until_up(START_S)
        line = cluster.named("a").invite(uses=2)
        for name in ("b", "c"):
            home.start(name, "--join", line)
        yield home


@dataclass
class Told:
    """One script, told by processes: it looks at `a` from a thread while the task is followed."""

    home: Home
    script: Script
    onlooker: Onlooker = field(default_factory=Onlooker)
    is_over: threading.Event = field(default_factory=threading.Event)
    whom: str = ""

    @property
    def asked(self) -> LocalNode:
        return self.home.cluster.named("a")

    def look(self) -> None:
        while not self.is_over.wait(LOOK_S):
            with contextlib.suppress(NodeGoneError, NodeNotRunningError):
                rows = self.asked.ask("peers")["peers"]
                assert isinstance(rows, list)
                self.onlooker.looked(rows, time.monotonic())

    def heard(self, event: Mapping[str, object]) -> None:
        if self.onlooker.heard(event) and self.script.what != "nothing":
            self.whom = self.onlooker.whom(self.script)
            self.onlooker.befell(self.whom, time.monotonic())
            self.home.befall(self.script.what, self.whom)

    def is_idle(self) -> bool:
        """Whether the one that something befell runs nothing any more."""
        with contextlib.suppress(NodeGoneError, NodeNotRunningError):
            return self.home.cluster.named(self.whom).ask("status")["load"] == 0
        return False

    def tell_again(self) -> None:
        events: list[Mapping[str, object]] = []
        named = {"task": self.onlooker.task}
        self.onlooker.retold(events, self.asked.ask("attach", named, on_event=events.append))

    def tell(self) -> None:
        self.home.cluster.wait_until_met(START_S)
        looking = threading.Thread(target=self.look)
        looking.start()
        try:
            self.onlooker.ended(
                self.asked.ask("submit", {**REQUEST, "follow": True}, on_event=self.heard)
            )
            if self.script.what != "nothing":
                wait_until(lambda: self.onlooker.has_given_up, f"{self.whom} is given up")
                self.home.undo(self.script.what, self.whom)
                wait_until(lambda: self.onlooker.has_forgiven, "it is back", START_S)
                wait_until(self.is_idle, "it has nothing to do", START_S)
            self.tell_again()
        finally:
            self.is_over.set()
            looking.join()


@pytest.mark.parametrize(
    ("home", "script"),
    [pytest.param(script.roles, script, id=str(script)) for script in TOLD],
    indirect=["home"],
    scope="module",
)
def test_a_user_sees_of_real_processes_what_the_simulator_tells(home: Home, script: Script) -> None:
    if script.what == "cut off" and not home.machines:
        pytest.skip(str(missing()))
    expected = simulated(script)
    told = Told(home, script)
    told.tell()
    sys.stdout.write(home.cluster.logs())
    history = told.onlooker.history
    sys.stdout.write(f"simulated {expected}\nfor real  {history}\n")
    assert history.visible == expected.visible
    assert history.retold == history.telling
    assert not broken_bounds(script, expected)
    assert not broken_bounds(script, history, slack_s=SLACK_S)
