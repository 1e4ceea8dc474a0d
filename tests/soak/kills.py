"""Real nodes are killed in the middle of tasks: `python -m tests.soak.kills` (`make kills`).

Eight nodes on loopback (one submits, three lead, three run code, one has the model server) share
one task of twenty cells after the other, each with a sub-call, one with a batch of them. In each
task somebody is killed with SIGKILL, and comes back. Every task must end with the answer of the
undisturbed run, and nothing is shown twice. No model is asked anything twice, prompt by prompt; but
where the very peer that runs it is killed, for the one call that it was at.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trio

from kowalski.node.control_client import NodeGoneError, NodeNotRunningError
from kowalski.node.local_cluster import LocalNode
from tests.integration.cluster import START_S, Cluster, open_cluster, wait_until
from tests.netns import missing
from tests.scripted_model_server import Script, ScriptedModelServer, open_scripted_server
from tests.soak import partition
from tests.soak.partition import open_home

NODES = 8
CELLS = 20
BATCH_CELL = 10
BATCH = 12
TASK_S = 180.0
MEET_S = 180.0
Event = dict[str, Any]


def roles_of(nodes: int) -> dict[str, str]:
    """By name: one that submits, one with the model, and as many that lead as run code."""
    roles = {"asker": "submit", "mind": "submit,infer"}
    for number in range(nodes - len(roles)):
        name, role = ("lead", "coordinate") if number % 2 == 0 else ("hand", "repl")
        roles[f"{name}{number // 2 + 1}"] = f"submit,{role}"
    return roles


def turns() -> tuple[str, ...]:
    """What the model says, turn by turn: one cell each, the last of which has the answer."""
    code = [
        f"import time\ntime.sleep(0.1)\npart = llm_query('ECHO: part {n}')\n"
        f"said = globals().get('said', []) + [part]\nprint(part)"
        for n in range(CELLS)
    ]
    asked = "[f'ECHO: item {n}\\nDELAY: 0.05' for n in range(" + str(BATCH) + ")]"
    code[BATCH_CELL] = f"items = llm_query_batched({asked})\nsaid.extend(items)\nprint(*items)"
    code[-1] = "answer['content'] = ' '.join(said)\nanswer['ready'] = True"
    return tuple(f"```python\n{one}\n```" for one in code)


# --- the model server, in a thread, so that its calls can be read -------------------------------


@contextlib.contextmanager
def open_models() -> Iterator[ScriptedModelServer]:
    opened: list[ScriptedModelServer] = []
    is_open, close = threading.Event(), threading.Event()

    async def serve() -> None:
        script = Script(root=turns(), counts_turns=True)
        async with open_scripted_server(script) as server:
            opened.append(server)
            is_open.set()
            while not close.is_set():  # noqa: ASYNC110 another thread sets it
                await trio.sleep(0.05)

    thread = threading.Thread(target=trio.run, args=(serve,), daemon=True)
    thread.start()
    is_open.wait(10.0)
    try:
        yield opened[0]
    finally:
        close.set()
        thread.join(10.0)


# --- one task -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Followed:
    """One task as its submitter was shown it, over all its connections."""

    answer: str = ""
    state: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    """How often the model server was asked each prompt, answered or not."""
    shown: Counter[int] = field(default_factory=Counter)
    """How often each cell was shown as done within one following."""
    leader: str = ""
    hand: str = ""
    killed_at: float | None = None
    gap_s: float | None = None
    """From the kill to the next word of a cell."""
    took_s: float = 0.0

    @property
    def again(self) -> int:
        """How often the model server was asked what it had been asked before."""
        return self.asked.total() - len(self.asked)


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to kill: after which cell, and whom."""

    name: str
    after: int
    whom: tuple[str, ...]
    """Of `leader`, `hand`, `asker`, `all`."""
    in_batch: bool = False
    when_answered: bool = False

    @property
    def is_of_leader(self) -> bool:
        return "leader" in self.whom

    @property
    def again_max(self) -> int:
        """Prompts that may be asked twice: what the killed peer with the model was at."""
        return 1 if "all" in self.whom else 0


class Mesh:
    """The nodes, and what is done with them."""

    def __init__(
        self, cluster: Cluster, models: ScriptedModelServer, roles: dict[str, str]
    ) -> None:
        self.cluster = cluster
        self.roles = roles
        self.models = models

    def options(self, name: str) -> tuple[str, ...]:
        backend = ("--backend", self.models.url) if name == "mind" else ()
        return ("--roles", self.roles[name], "--no-http", *backend)

    def form(self) -> None:
        """One after the other: all at once they keep a small machine from hearing each other."""
        (first, *others) = self.roles
        self.cluster.start(first, *self.options(first)).wait_until_up(START_S)
        line = self.cluster.named(first).invite(uses=len(others))
        for name in others:
            self.cluster.start(name, "--join", line, *self.options(name)).wait_until_up(START_S)
        self.cluster.wait_until_met(MEET_S)

    def restore(self) -> None:
        """Start again who was killed, and wait until all have met and the model is known."""
        for name in self.roles:
            if self.cluster.named(name).process.poll() is not None:
                self.cluster.start(name, *self.options(name))
        self.cluster.wait_until_met(MEET_S)
        wait_until(self._has_model, "the model is known to those who lead", START_S)

    def _has_model(self) -> bool:
        for name in (one for one in self.roles if one.startswith("lead")):
            rows = self.cluster.named(name).ask("models")["models"]
            assert isinstance(rows, list)
            if not rows:
                return False
        return True

    def run(self, task: str, kind: Kind | None) -> Followed:
        """Submit, kill, restore, and follow to the end, over whatever it takes."""
        began = time.monotonic()
        calls = len(self.models.calls)
        one = Followed()
        asker = self.cluster.named("asker")
        request: Event = {"prompt": "count the parts", "mode": "rlm", "task_id": task}
        request |= {"timeout_s": TASK_S, "max_iterations": CELLS + 5}
        self._follow(asker, "submit", request, one, kind)
        give_up_at = time.monotonic() + TASK_S
        while not one.state:
            assert time.monotonic() < give_up_at, f"{task} has no end"
            self.restore()
            one.shown.clear()
            self._follow(self.cluster.named("asker"), "attach", {"task": task}, one, None)
        one.took_s = time.monotonic() - began
        self.restore()
        told = self.cluster.named("asker").ask("task", {"task": task})
        one.answer, one.state = str(told["answer"]), str(told["state"])
        one.asked.update(json.dumps(call.messages) for call in self.models.calls[calls:])
        return one

    def _follow(
        self, asker: LocalNode, verb: str, request: Event, one: Followed, kind: Kind | None
    ) -> None:
        def hear(event: Event) -> None:
            now = time.monotonic()
            if event.get("kind") == "coordinator":
                one.leader = str(event["name"])
            if event.get("kind") != "cell":
                return
            if one.killed_at is not None and one.gap_s is None:
                one.gap_s = now - one.killed_at
            one.hand = str(event["name"])
            if event["status"] != "done":
                return
            one.shown[event["cell"]] += 1
            if kind is None or one.killed_at is not None or event["cell"] != kind.after:
                return
            if kind.in_batch:
                threading.Thread(target=self._kill_in_batch, args=(one, kind)).start()
            elif not kind.when_answered:
                self._kill(one, kind)

        with contextlib.suppress(NodeGoneError, NodeNotRunningError):
            result = asker.ask(verb, request, on_event=hear, silence_s=TASK_S)
            one.state = str(result["state"])
            if kind is not None and kind.when_answered:
                self._kill(one, kind)

    def _kill_in_batch(self, one: Followed, kind: Kind) -> None:
        asked = len(self.models.calls)
        wait_until(
            lambda: any("item" in call.last for call in self.models.calls[asked:]), "the batch"
        )
        self._kill(one, kind)

    def _kill(self, one: Followed, kind: Kind) -> None:
        names = {"leader": one.leader, "hand": one.hand, "asker": "asker"}
        whom = list(self.roles) if "all" in kind.whom else [names[role] for role in kind.whom]
        processes = [self.cluster.named(name).process for name in whom]
        one.killed_at = time.monotonic()
        for process in processes:
            process.kill()
        for process in processes:
            process.wait(10.0)


# --- the matrix ---------------------------------------------------------------------------------


def draw_kills(count: int, seed: int) -> list[Kind]:
    """`count` kills of all kinds in turn, each after a cell that the seed says."""
    dice = random.Random(seed)

    def after() -> int:
        return dice.randrange(1, CELLS - 3)

    makers: Sequence[Callable[[], Kind]] = (
        lambda: Kind("executor", after(), ("hand",)),
        lambda: Kind("coordinator", after(), ("leader",)),
        lambda: Kind("coordinator in a batch", BATCH_CELL - 1, ("leader",), in_batch=True),
        lambda: Kind("submitter before the answer", after(), ("asker",)),
        lambda: Kind("coordinator", after(), ("leader",)),
        lambda: Kind("executor", after(), ("hand",)),
        lambda: Kind("coordinator and executor", after(), ("leader", "hand")),
        lambda: Kind("coordinator in a batch", BATCH_CELL - 1, ("leader",), in_batch=True),
        lambda: Kind("submitter after the answer", CELLS - 2, ("asker",), when_answered=True),
        lambda: Kind("all", after(), ("all",)),
    )
    return [makers[number % len(makers)]() for number in range(count)]


def complaints_of(kind: Kind, one: Followed, wanted: Followed) -> list[str]:
    """What of a task is not as in the undisturbed run."""
    found: list[str] = []
    if one.killed_at is None:
        found.append("nobody was killed")
    if (one.state, one.answer) != (wanted.state, wanted.answer):
        found.append(f"{one.state}: {one.answer[:80]!r}")
    if one.again > kind.again_max:
        found.append(f"{one.again} prompts were asked again, at most {kind.again_max} may be")
    if len(one.asked) != len(wanted.asked):
        found.append(f"{len(one.asked)} prompts were asked, not {len(wanted.asked)}")
    twice = [cell for cell, times in one.shown.items() if times > 1]
    if twice:
        found.append(f"cells shown twice: {twice}")
    return [f"{kind.name} after cell {kind.after}: {words}" for words in found]


def run_all(folder: Path, kills: Sequence[Kind], roles: dict[str, str]) -> list[str]:
    """The table on stdout; what was wrong, empty if nothing was."""
    complaints: list[str] = []
    gaps_s: list[float] = []
    with open_models() as models, open_cluster(folder) as cluster:
        mesh = Mesh(cluster, models, roles)
        mesh.form()
        mesh.restore()
        wanted = mesh.run("undisturbed", None)
        assert wanted.state == "answered", wanted
        assert wanted.again == 0, "a prompt was asked twice though nobody was killed"
        calls = wanted.asked.total()
        _say(f"{'killed':32}{'after':>6}{'took':>9}{'next cell':>11}{'calls':>7}{'again':>7}")
        _say(f"{'nobody':32}{'':>6}{wanted.took_s:>7.1f} s{'':>11}{calls:>7}{0:>7}")
        for number, kind in enumerate(kills):
            one = mesh.run(f"kill-{number}", kind)
            gap = f"{one.gap_s:.2f} s" if one.gap_s is not None else ""
            row = f"{kind.name:32}{kind.after:>6}{one.took_s:>7.1f} s{gap:>11}"
            _say(f"{row}{one.asked.total():>7}{one.again:>7}")
            if kind.is_of_leader and one.gap_s is not None:
                gaps_s.append(one.gap_s)
            wrong = complaints_of(kind, one, wanted)
            for words in wrong:
                _say(f"    WRONG: {words}")
            complaints += wrong
    if gaps_s:
        ordered = sorted(gaps_s)
        p99 = ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]
        p50 = statistics.median(ordered)
        _say(f"coordinator killed to next cell: p50 {p50:.2f} s, p99 {p99:.2f} s of {len(ordered)}")
    return complaints


def _part(lasts_s: float) -> list[str]:
    """On three machines of their own, where such can be made."""
    if why_not := missing():
        _say(f"no partition: {why_not}")
        return []
    with TemporaryDirectory(prefix="kowalski-parted-") as folder, open_home(Path(folder)) as home:
        wrong = partition.complaints_of(home, lasts_s)
    _say(f"leader cut off for {lasts_s:g} s: {'; '.join(wrong) or 'as undisturbed, fenced later'}")
    return wrong


def _say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.soak.kills", description=__doc__)
    arguments.add_argument("--kills", type=int, default=30, help="tasks, one kill in each (30)")
    arguments.add_argument("--nodes", type=int, default=NODES, help="at least 6 (8)")
    arguments.add_argument(
        "--partition", type=float, default=30.0, help="seconds that a leader is cut off; 0: none"
    )
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    load = os.getloadavg()[0]
    _say(f"{options.nodes} nodes, {options.kills} kills, seed {options.seed}, load {load:.1f}")
    with TemporaryDirectory(prefix="kowalski-kills-") as folder:
        complaints = run_all(
            Path(folder), draw_kills(options.kills, options.seed), roles_of(options.nodes)
        )
    if options.partition:
        complaints += _part(options.partition)
    _say("; ".join(complaints) or "all as in the undisturbed run")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
