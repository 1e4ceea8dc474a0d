"""Three machines, one of which is cut off while it leads a task: in network namespaces, as root."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kowalski.node.local_cluster import LocalNode
from tests.integration.cluster import START_S, Cluster, entering, open_cluster, wait_until
from tests.netns import Machine, lan

ROLES = {"a": "submit,repl", "b": "submit,coordinate", "c": "submit,coordinate"}
TASK_S = 120.0
BACK_S = 90.0
PROMPT = "Three steps.\n\n" + "\n\n".join(
    f"```python\n{code}\n```"
    for code in (
        "import time\ntotal = sum(range(1000))\nprint('first', total)",
        "time.sleep(2)\ntotal += 1\nprint('second', total)",
        "print('third', total)",
    )
)
Event = dict[str, Any]


@dataclass(slots=True)
class Seen:
    """A task as its submitter was shown it."""

    result: Event = field(default_factory=dict)
    leaders: list[str] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    """Cells, in the order in which they were shown as done."""


@dataclass(frozen=True, slots=True)
class Home:
    machines: dict[str, Machine]
    cluster: Cluster

    def node(self, name: str) -> LocalNode:
        return self.cluster.named(name)

    def run(self, task: str, *, cuts_leader: bool) -> Seen:
        """Submit at `a`, and where wanted cut off who leads, once the first cell is done."""
        seen = Seen()

        def hear(event: Event) -> None:
            if event.get("kind") == "coordinator":
                seen.leaders.append(str(event["name"]))
            if event.get("kind") == "cell" and event["status"] == "done":
                seen.done.append(event["cell"])
                if cuts_leader and event["cell"] == 0 and len(seen.leaders) == 1:
                    self.machines[seen.leaders[0]].cut()

        request = {"prompt": PROMPT, "mode": "blocks", "task_id": task, "timeout_s": TASK_S}
        seen.result = dict(self.node("a").ask("submit", request, on_event=hear, silence_s=TASK_S))
        return seen

    def told(self, task: str) -> Event:
        """All that the submitter knows of it, but for how long ago."""
        told = self.node("a").ask("task", {"task": task})
        return {key: value for key, value in told.items() if not key.endswith("_s_ago")}


@contextlib.contextmanager
def open_home(folder: Path) -> Iterator[Home]:
    with lan(len(ROLES)) as made, open_cluster(folder) as cluster:
        machines = dict(zip(ROLES, made, strict=True))
        home = Home(machines, cluster)
        line = ""
        for name, roles in ROLES.items():
            join = ("--join", line) if line else ()
            prefix = entering(machines[name])
            node = cluster.start(name, "--roles", roles, "--no-http", *join, prefix=prefix)
            node.wait_until_up(START_S)
            line = line or node.invite(uses=len(ROLES) - 1)
        cluster.wait_until_met(START_S)
        yield home


def complaints_of(home: Home, lasts_s: float) -> list[str]:
    """What went wrong when who led a task was cut off for so long; empty if nothing did."""
    undisturbed = home.run("undisturbed", cuts_leader=False)
    began = time.monotonic()
    seen = home.run("parted", cuts_leader=True)
    minority = home.node(seen.leaders[0])
    before = home.told("parted")
    time.sleep(max(0.0, began + lasts_s - time.monotonic()))
    home.machines[minority.name].mend()
    home.cluster.wait_until_met(BACK_S)
    ended = re.compile(r"term-ended +task=parted term=1")
    wait_until(lambda: ended.search(minority.log) is not None, "the minority has stopped", BACK_S)
    found: list[str] = []
    if seen.result["answer"] != undisturbed.result["answer"]:
        found.append(f"answered {seen.result['answer']!r}")
    if seen.result["term"] != 2 or len(set(seen.leaders)) != 2:
        found.append(f"term {seen.result['term']}, led by {seen.leaders}")
    if seen.done != [0, 1, 2]:
        found.append(f"cells were shown as {seen.done}")
    if home.told("parted") != before:
        found.append("something changed when the minority was back")
    return found
