"""Nodes that are killed on the way: the task ends as if nothing had happened, and once."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kowalski.node import places
from kowalski.node.local_cluster import LocalNode
from tests.integration.cluster import (
    START_S,
    Cluster,
    child_processes,
    is_running,
    open_cluster,
    wait_until,
    whole_log,
)

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

ROLES = {
    "asker": "submit",
    "lead1": "submit,coordinate",
    "lead2": "submit,coordinate",
    "hand1": "submit,repl",
    "hand2": "submit,repl",
}
TASK_S = 90.0

# The second cell leaves the time to kill somebody after the first one.
PROMPT = """\
Three steps.

```python
import random, time
total = sum(range(1000))
drawn = random.random()
print("first", total)
```

```python
time.sleep(2)
total += 1
print("second", total)
```

```python
print("third", total, drawn)
```
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with open_cluster(tmp_path_factory.mktemp("losses")) as cluster:
        cluster.form({name: ("--roles", roles) for name, roles in ROLES.items()})
        yield cluster


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    """All five of them, up and met."""
    for name, roles in ROLES.items():
        if shared.named(name).process.poll() is not None:
            shared.start(name, "--roles", roles)
    shared.wait_until_met(START_S)
    yield shared
    sys.stdout.write(shared.logs())


@pytest.fixture(scope="module")
def undisturbed(shared: Cluster) -> str:
    """The answer when nobody is killed."""
    done = shared.cli(shared.named("asker"), "submit", "--json", "--mode", "blocks", PROMPT)
    assert done.exit_code == 0, done
    answer: str = done.result["answer"]
    assert "second 499501" in answer
    return answer


def follow(
    cluster: Cluster, task: str, on_event: Callable[[dict[str, Any]], None]
) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    """Submit, hear every event, and give the last line; the process has ended."""
    arguments = ("--mode", "blocks", "--timeout", f"{TASK_S:g}s", "--task-id", task, PROMPT)
    asking = cluster.begin_cli(cluster.named("asker"), "submit", "--json", *arguments)
    assert asking.stdout is not None
    last: dict[str, Any] = {}
    for line in asking.stdout:
        last = json.loads(line)
        on_event(last)
    asking.wait(timeout=10)
    return asking, last


def as_told(cluster: Cluster, task: str) -> dict[str, Any]:
    """All that the submitter knows of it, but for how long ago."""
    told = cluster.named("asker").ask("task", {"task": task})
    return {key: value for key, value in told.items() if not key.endswith("_s_ago")}


def is_first_cell_done(event: dict[str, Any]) -> bool:
    return event.get("kind") == "cell" and (event["cell"], event["status"]) == (0, "done")


def test_the_answer_is_the_same_when_the_executor_is_killed_between_cells(
    cluster: Cluster, undisturbed: str
) -> None:
    killed: list[str] = []

    def kill_executor(event: dict[str, Any]) -> None:
        if is_first_cell_done(event) and not killed:
            killed.append(event["name"])
            cluster.named(event["name"]).kill()

    asking, done = follow(cluster, "executor-lost", kill_executor)
    assert asking.returncode == 0, done
    assert done["answer"] == undisturbed
    assert done["term"] == 1
    ran = {row["what"]: row["name"] for row in done["ran"]}
    assert ran["cell 0 (python)"] == killed[0]
    assert {ran["cell 1 (python)"], ran["cell 2 (python)"]} == {"hand1", "hand2"} - set(killed)


def test_the_answer_is_the_same_when_the_coordinator_is_killed(
    cluster: Cluster, undisturbed: str
) -> None:
    leaders: list[str] = []

    def kill_coordinator(event: dict[str, Any]) -> None:
        if event.get("kind") == "coordinator":
            leaders.append(event["name"])
        if is_first_cell_done(event) and len(leaders) == 1:
            cluster.named(leaders[0]).kill()

    asking, done = follow(cluster, "coordinator-lost", kill_coordinator)
    assert asking.returncode == 0, done
    assert done["answer"] == undisturbed
    assert done["term"] == 2
    assert sorted(leaders) == ["lead1", "lead2"]
    assert done["coordinator_name"] == leaders[1]


def test_a_coordinator_that_is_told_to_stop_hands_over_and_nothing_is_done_again(
    cluster: Cluster, undisturbed: str
) -> None:
    leaders: list[str] = []
    codes: list[int] = []

    def stop_coordinator(event: dict[str, Any]) -> None:
        if event.get("kind") == "coordinator":
            leaders.append(event["name"])
        if is_first_cell_done(event) and len(leaders) == 1:
            codes.append(cluster.named(leaders[0]).stop())

    asking, done = follow(cluster, "coordinator-stops", stop_coordinator)
    assert asking.returncode == 0, done
    assert codes == [0]
    assert done["answer"] == undisturbed
    assert (done["term"], done["coordinator_name"]) == (2, leaders[1])
    assert "draining" in whole_log(cluster.named(leaders[0]))
    assert len({row["name"] for row in done["ran"]}) == 1, "one session ran all of it"
    assert [row["what"] for row in done["ran"]] == [f"cell {n} (python)" for n in range(3)]


def test_a_drained_node_is_given_nothing_until_it_takes_work_again(cluster: Cluster) -> None:
    asker, hand = cluster.named("asker"), cluster.named("hand1")
    run = ("run", "--json", "--language", "python", "--code", "print(1)")
    assert cluster.cli(hand, "drain", "--json").result["is_empty"]
    wait_until(lambda: is_draining(asker, "hand1"), "everybody knows")
    for _ in range(4):
        assert cluster.cli(asker, *run).result["name"] == "hand2"
    assert cluster.cli(cluster.named("hand2"), "drain").exit_code == 0
    assert cluster.cli(asker, *run).exit_code != 0
    assert cluster.cli(hand, "undrain").exit_code == 0
    wait_until(lambda: not is_draining(asker, "hand1"), "everybody knows")
    assert cluster.cli(asker, *run).result["name"] == "hand1"
    assert cluster.cli(cluster.named("hand2"), "undrain").exit_code == 0


def is_draining(node: LocalNode, name: str) -> bool:
    rows = node.ask("peers")["peers"]
    assert isinstance(rows, list)
    return any(row["draining"] for row in rows if row["name"] == name)


def test_a_task_outlives_its_submitters_process_and_is_there_once(
    cluster: Cluster, undisturbed: str
) -> None:
    asker = cluster.named("asker")

    def kill_submitter(event: dict[str, Any]) -> None:
        if is_first_cell_done(event):
            asker.kill()

    asking, last = follow(cluster, "submitter-lost", kill_submitter)
    assert asking.returncode == 3
    assert last["error"]["code"] == "node_gone"

    cluster.start("asker", "--roles", ROLES["asker"])
    again = cluster.named("asker")
    again.wait_until_up(START_S)
    wait_until(lambda: state_of(again, "submitter-lost") == "answered", "the answer", TASK_S)
    shown = cluster.cli(again, "tasks", "--json", "submitter-lost").result
    assert shown["answer"] == undisturbed
    rows = cluster.cli(again, "tasks", "--json").result["tasks"]
    assert [row["task"] for row in rows].count("submitter-lost") == 1

    again.kill()  # now that it has the answer
    cluster.start("asker", "--roles", ROLES["asker"])
    cluster.named("asker").wait_until_up(START_S)
    assert as_told(cluster, "submitter-lost")["answer"] == undisturbed


def state_of(node: LocalNode, task: str) -> str:
    return str(node.ask("task", {"task": task})["state"])


# --- one node and its processes -----------------------------------------------------------------

ENDLESS = "import subprocess\nprint('on', flush=True)\nsubprocess.run(['sleep', '1000'])"


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Every test starts the one node here again, on the data that the one before left."""
    with open_cluster(tmp_path_factory.mktemp("lone")) as cluster:
        yield cluster


@pytest.mark.parametrize(
    ("end", "exit_code"),
    [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 0), (signal.SIGINT, 0)],
)
def test_a_node_that_ends_takes_its_programs_along_and_can_start_again(
    lone: Cluster, end: signal.Signals, exit_code: int
) -> None:
    before = lone.nodes[0].peer if lone.nodes else None
    (settings := lone.folder / "config.toml").write_text("drain_s = 0.5\n")
    node = lone.start("alone", "--no-mdns", "--config", str(settings))
    node.wait_until_up(START_S)
    assert before in {None, node.peer}
    running = lone.begin_cli(node, "run", "--json", "--language", "python", "--code", ENDLESS)
    assert running.stdout is not None
    assert json.loads(running.stdout.readline())["text"].strip() == "on"
    wait_until(lambda: "sleep" in commands_below(node), "the program's own child", 10.0)
    children = child_processes(node.process.pid)

    node.process.send_signal(end)
    assert node.process.wait(timeout=15) == exit_code
    wait_until(lambda: not any(map(is_running, children)), "its processes are gone", 5.0)
    assert running.wait(timeout=10) == 3
    assert json.loads(running.stdout.readlines()[-1])["error"]["code"] == "node_gone"
    assert lone.cli(node, "status").exit_code == 3
    if end != signal.SIGKILL:
        assert not places.control_path(node.data_dir).parent.exists()
    assert "Traceback" not in whole_log(node)


def commands_below(node: LocalNode) -> set[str]:
    """Names of the programs that run below `node`."""
    names: set[str] = set()
    for pid in child_processes(node.process.pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            names.add(Path(f"/proc/{pid}/comm").read_text().strip())
    return names


def test_a_coordinator_that_was_stopped_for_a_while_changes_nothing_when_it_goes_on(
    cluster: Cluster, undisturbed: str
) -> None:
    leaders: list[LocalNode] = []
    done_cells: list[int] = []

    def stop_coordinator(event: dict[str, Any]) -> None:
        if event.get("kind") == "coordinator":
            leaders.append(cluster.named(event["name"]))
        if event.get("kind") == "cell" and event["status"] == "done":
            done_cells.append(event["cell"])
        if is_first_cell_done(event) and len(leaders) == 1:
            leaders[0].process.send_signal(signal.SIGSTOP)

    try:
        asking, done = follow(cluster, "coordinator-stopped", stop_coordinator)
        assert asking.returncode == 0, done
        before = as_told(cluster, "coordinator-stopped")
    finally:
        leaders[0].process.send_signal(signal.SIGCONT)
    first, second = leaders
    assert first.name != second.name
    assert (done["answer"], done["term"]) == (undisturbed, 2)
    assert done_cells == [0, 1, 2], "each result is visible once"
    # The first one wakes up in the middle of its second cell, and hears that it leads no more.
    ended = re.compile(r"term-ended +task=coordinator-stopped term=1")
    wait_until(lambda: ended.search(first.log) is not None, START_S)
    cluster.wait_until_met(START_S)
    assert as_told(cluster, "coordinator-stopped") == before
