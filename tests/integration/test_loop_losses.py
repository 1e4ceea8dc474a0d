"""Nodes that are killed while the loop runs: no model is asked anything twice.

Real processes and sandboxes; the scripted model server counts what it is asked.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from kowalski.node.local_cluster import LocalNode
from kowalski.protocol.messages.repl import SubCall
from kowalski.rlm.sub_calls import question_of
from tests.integration.cluster import START_S, Cluster, open_cluster, wait_until
from tests.scripted_model_server import Act, Call, Script, ScriptedModelServer
from tests.served_in_thread import serve_in_thread

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

ROLES = {
    "asker": "submit,infer",
    "lead1": "submit,coordinate",
    "lead2": "submit,coordinate",
    "hand1": "submit,repl",
    "hand2": "submit,repl",
}
QUESTIONS = 300
NUMBERS = {question_of(SubCall(prompt=f"question {n}")): n for n in range(QUESTIONS)}
LATER = {f"question {n}" for n in range(QUESTIONS // 2, QUESTIONS)}
is_slow = threading.Event()
"""Whether these are slow just now: so long, a batch is in its middle, however busy the machine."""
SLOW_S = 0.5
TURNS = 20

GROUPS = f"""\
```python
replies = llm_query_batched([f"question {{n}}" for n in range({QUESTIONS})])
right = [f"reply to question {{n}}" for n in range({QUESTIONS})]
print("all of them:", replies == right, len(replies))
print([one for one in zip(replies, right) if one[0] != one[1]][:3])
```
"""

SLOW_QUESTIONS = 12
SLOW = f"""\
```python
replies = llm_query_batched([f"slow {{n}}\\nDELAY: 0.8" for n in range({SLOW_QUESTIONS})])
print("all of them:", all(f"slow {{n}}" in one for n, one in enumerate(replies)), len(replies))
```
"""


def step(turn: int) -> str:
    """Cell `turn` of a session of so many: it goes on from the variables of the one before."""
    if turn == 0:
        return "import random\nseen = [random.random()]\nprint(llm_query('part 0'))"
    if turn < TURNS - 1:
        return f"seen.append(llm_query('part {turn}'))\nprint({turn}, len(seen))"
    return f"FINAL(' '.join(map(str, [*seen, llm_query('part {turn}')])))"


def say(call: Call) -> Act | str:
    if call.last in LATER and is_slow.is_set():
        return Act(f"reply to {call.last}", delay_per_token_s=SLOW_S)
    if call.root_number is None:
        return f"reply to {call.last}"
    turn = sum(message["role"] == "assistant" for message in call.messages)
    return f"```python\n{step(turn)}\n```"


@dataclass(slots=True)
class Mesh:
    cluster: Cluster
    server: ScriptedModelServer
    leaders: list[str] = field(default_factory=list)

    def asked(self, part: str) -> Counter[str]:
        """Sub-calls with this in them, and how often each was asked."""
        asked = [call.last for call in list(self.server.calls) if call.root_number is None]
        return Counter(prompt for prompt in asked if part in prompt)

    def root_calls(self) -> int:
        return sum(call.root_number is not None for call in list(self.server.calls))

    def follow(self, *arguments: str, on_event: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Submit, hear every event, and give the last line."""
        del self.server.calls[:]
        self.leaders.clear()
        asking = self.cluster.begin_cli(self.asker, "submit", "--json", *arguments)
        assert asking.stdout is not None
        last: dict[str, Any] = {}
        for line in asking.stdout:
            last = json.loads(line)
            if last.get("kind") == "coordinator":
                self.leaders.append(last["name"])
            on_event(last)
        assert asking.wait(timeout=10) == 0, last
        return last

    def restore(self) -> None:
        """Start again who was killed, and wait until all have met."""
        for name, roles in ROLES.items():
            if self.cluster.named(name).process.poll() is not None:
                self.cluster.start(name, "--roles", roles)
        self.cluster.wait_until_met(START_S)

    @property
    def asker(self) -> LocalNode:
        return self.cluster.named("asker")

    def journal(self, task: str) -> list[dict[str, Any]]:
        rows = self.asker.ask("trace", {"task": task})["journal"]
        assert isinstance(rows, list)
        return rows


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    script = Script(function=say)
    with (
        serve_in_thread(script) as server,
        open_cluster(tmp_path_factory.mktemp("loop-losses")) as cluster,
    ):
        options = {name: ["--roles", roles] for name, roles in ROLES.items()}
        options["asker"] += ["--backend", server.url]
        cluster.form(options)
        yield Mesh(cluster, server)
        sys.stdout.write(cluster.logs())


def test_a_coordinator_killed_in_the_middle_of_groups_has_nothing_asked_twice(
    mesh: Mesh,
) -> None:
    def kill_coordinator(event: dict[str, Any]) -> None:
        if event.get("kind") == "call" and len(mesh.leaders) == 1:
            leader = mesh.cluster.named(mesh.leaders[0])
            leader.kill()
            is_slow.clear()

    is_slow.set()
    arguments = ("--mode", "blocks", "--model", "none", "--task-id", "groups", GROUPS)
    done = mesh.follow(*arguments, on_event=kill_coordinator)
    assert f"all of them: True {QUESTIONS}" in done["answer"], "each in its place, and right"
    assert done["term"] == 2
    assert done["stats"]["sub_calls"] == QUESTIONS

    answered = [(row["term"], at) for row in mesh.journal("groups") for at in questions(row)]
    assert sorted(at for _, at in answered) == list(range(QUESTIONS)), "each once"
    by_the_first = [at for term, at in answered if term == 1]
    assert 0 < len(by_the_first) < QUESTIONS, "it was killed in the middle"
    assert mesh.asked("question") == {f"question {at}": 1 for at in range(QUESTIONS)}


def test_two_killed_in_the_middle_of_slow_questions_have_nothing_asked_twice(mesh: Mesh) -> None:
    """Coordinator and executor at once, all questions under way."""
    mesh.restore()

    def kill_both(event: dict[str, Any]) -> None:
        if event.get("kind") == "cell" and event["status"] == "started" and not killed:
            wait_until(lambda: len(mesh.asked("slow")) >= SLOW_QUESTIONS // 2, "half of them")
            for name in (mesh.leaders[0], event["name"]):
                killed.append(name)
                mesh.cluster.named(name).kill()

    killed: list[str] = []
    arguments = ("--mode", "blocks", "--model", "none", "--task-id", "slow", SLOW)
    done = mesh.follow(*arguments, on_event=kill_both)
    assert len(killed) == 2
    assert f"all of them: True {SLOW_QUESTIONS}" in done["answer"]
    assert done["term"] == 2
    assert list(mesh.asked("slow").values()) == [1] * SLOW_QUESTIONS


def is_of_group(row: dict[str, Any]) -> bool:
    return bool(row["kind"] == "journal/sub-calls-answered")


def questions(row: dict[str, Any]) -> list[int]:
    """The numbers of those that this entry answers."""
    if is_of_group(row):
        return [NUMBERS[one["prompt"]] for one in row["answers"]]
    return [NUMBERS[row["prompt"]]] if row["kind"] == "journal/sub-call-answered" else []


def test_an_executor_killed_after_half_of_twenty_cells_costs_no_call_of_a_model(
    mesh: Mesh,
) -> None:
    mesh.restore()
    killed: list[str] = []

    def kill_executor(event: dict[str, Any]) -> None:
        if event.get("kind") != "cell" or killed:
            return
        if (event["cell"], event["status"]) == (TURNS // 2, "done"):
            killed.append(event["name"])
            mesh.cluster.named(event["name"]).kill()

    def play(task: str, on_event: Callable[[dict[str, Any]], None]) -> tuple[str, int]:
        arguments = ("--mode", "rlm", "--max-iterations", str(TURNS), "--seed", "5")
        done = mesh.follow(*arguments, "--task-id", task, "Go on", on_event=on_event)
        assert set(mesh.asked("part").values()) == {1}, "no sub-call is asked twice"
        assert len(mesh.asked("part")) == TURNS
        assert done["stats"]["attempts"] == len(mesh.server.calls), "as the server counted"
        return done["answer"], mesh.root_calls()

    undisturbed = play("undisturbed", lambda _event: None)
    assert undisturbed[1] == TURNS
    assert play("executor-lost", kill_executor) == undisturbed
    (lost,) = killed
    ran = {
        row["what"]: row["name"] for row in mesh.asker.ask("task", {"task": "executor-lost"})["ran"]
    }
    assert ran["cell 0 (python)"] == lost
    assert ran[f"cell {TURNS - 1} (python)"] == ({"hand1", "hand2"} - {lost}).pop()
