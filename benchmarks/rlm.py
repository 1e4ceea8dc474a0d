"""What the loop itself costs, and whether it counts right: `python -m benchmarks.rlm`.

One node that is submitter, coordinator, worker and model peer at once, in a process of its own, so
that its processor time is an upper bound of a coordinator's; the kernels are other processes. The
model is a scripted server. With `--peer rlms=PYTHON`, `dspy=PYTHON` and `smolagents=PYTHON`
(interpreters that have these of PyPI) the same cells are run by those, against such a server.
`--only peers` measures nothing of ours.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import figures, machine, rlm_peers
from benchmarks.asking import stats_of
from benchmarks.rlm_peers import CELL, TURNS
from kowalski import ExecutionResult, RLMError, Task
from kowalski.node import places
from kowalski.node.control_client import converse
from kowalski.node.core import coordinator_journal
from kowalski.node.core.coordinator_journal import CoordinatorJournal
from kowalski.node.local_cluster import LocalCluster
from kowalski.protocol import codec
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages import journal
from kowalski.rlm import session
from kowalski.sync import Kowalski
from tests.kowalski.rlm.session_world import LIMITS, World, spec

ROOT = Path(__file__).resolve().parents[1]
NEEDLE = "the needle is 4711\n"
HAY = "a line of which nobody wants to know anything at all\n"
CHUNK_CHARS = 100_000
PEER_S_MAX = 300.0
TURN = "one turn of {}, with a cell (ms)"
BATCH_OF = "1000 sub-calls in one batch (s)"
BATCH_LED = "1000 sub-calls, the model on another peer: who leads (s)"
BATCH_THOUGHT = "1000 sub-calls, the model on another peer: who has it (s)"

LOOK = f"""```python
parts = [context[i : i + {CHUNK_CHARS}] for i in range(0, len(context), {CHUNK_CHARS})]
asked = [part for part in parts if 'needle' in part]
found = llm_query_batched(['which needle? ' + part[-200:] + part[:200] for part in asked])
count = sum(part.count('\\n') for part in parts)
FINAL([line for line in context.splitlines() if 'needle' in line][0] + f' of {{count}} lines')
```"""
BATCH = "```python\nfound = llm_query_batched([f'ECHO: {n}' for n in range(1000)])\n```"
TREE = (
    "```python\nfound = rlm_query_batched([f'child {n}' for n in range(10)])\n"
    "FINAL(' '.join(map(str, found)))\n```"
)
CHILD = "```python\nFINAL(rlm_query('leaf of ' + context))\n```"
LEAF = "```python\nFINAL(llm_query('ECHO: x ' + context))\n```"
SCRIPT: dict[str, object] = {
    "by_substring": {
        "find it": LOOK,
        "the whole tree": TREE,
        "leaf of child": LEAF,
        "child ": CHILD,
        "ECHO": "",
    },
    "root": [CELL],
    "otherwise": "done",
}


@dataclass(frozen=True, slots=True)
class Bench:
    node: psutil.Process
    data_dir: Path
    url: str
    k: Kowalski

    def stats(self) -> dict[str, int]:
        return stats_of(self.url)

    def cpu_s(self) -> float:
        return _cpu_s(self.node)

    def measured(self, act: Callable[[], Any]) -> tuple[float, float, Any]:
        """Seconds of the node's processor, seconds on the clock, and what came of it."""
        before, began = self.cpu_s(), time.perf_counter()
        done = act()
        return self.cpu_s() - before, time.perf_counter() - began, done


@contextmanager
def open_server(folder: Path, script: dict[str, object]) -> Iterator[str]:
    """The URL of a scripted model server, a process of its own."""
    (folder / "script.json").write_text(json.dumps(script))
    command = [sys.executable, "-m", "tests.scripted_model_server"]
    command += ["--script", str(folder / "script.json"), "--model", "scripted"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as server:
        assert server.stdout is not None
        try:
            yield str(json.loads(server.stdout.readline())["url"])
        finally:
            server.terminate()


@contextmanager
def open_bench(folder: Path) -> Iterator[Bench]:
    with open_server(folder, SCRIPT) as url:
        data_dir = folder / "node"
        builder = Kowalski.builder().with_own_node("--backend", url).with_node(data_dir)
        with builder.build() as k:
            status = converse(places.control_path(data_dir), "status", {}, on_event=print)
            yield Bench(psutil.Process(int(str(status["pid"]))), data_dir, url, k)


def turns(bench: Bench, runs: int) -> None:
    print("\nturns, each with a cell     CPU of the node, ms a turn     clock, ms a turn")
    for count in TURNS:
        cpus, walls = [], []
        for _ in range(runs):
            cpu, wall, _ = bench.measured(
                lambda count=count: bench.k.execute(  # type: ignore[misc]
                    "go on", mode="rlm", max_iterations=count, window_tokens=1_000_000
                )
            )
            cpus.append(1000 * cpu / count)
            walls.append(1000 * wall / count)
        print(
            f"{count:5}  {min(cpus):23.2f} to {max(cpus):.2f}"
            f" {min(walls):18.1f} to {max(walls):.1f}"
        )
        _keep(TURN.format(count), walls, cpus)


def machine_alone(runs: int) -> None:
    """What deciding and journalling cost, without wires, disks, models and cells."""
    print("\nthe session machine and the journal alone, CPU ms a turn")
    for count in TURNS:
        costs = [1000 * _decided(count) / count for _ in range(runs)]
        print(f"{count:5}  {min(costs):23.3f} to {max(costs):.3f}", flush=True)
        _keep(f"deciding and journalling a turn of {count} (ms of CPU)", costs)


def _decided(count: int) -> float:
    """Seconds for so many turns."""
    world = World((CELL,))
    task = spec("go on", "rlm", turns=count, inputs=["data.txt"])
    state = session.new_session(task, limits=LIMITS)
    kept = CoordinatorJournal(TaskId("t"), term=1)
    waiting: list[journal.SessionEvent] = [journal.Opened(mode="rlm", model="m")]
    spent = 0.0
    while waiting:
        event, began = waiting.pop(0), time.process_time()
        kept, entry = coordinator_journal.record(kept, codec.encode(event))
        kept = coordinator_journal.accept(kept, entry.index)
        state, effects = session.step(state, event)
        spent += time.process_time() - began
        for effect in effects:
            if not isinstance(effect, session.Finish):
                waiting += world.answer(effect)
    return spent


def batch(bench: Bench, runs: int) -> None:
    cpus, walls = [], []
    for _ in range(runs):
        before = bench.stats()["calls"]
        cpu, wall, _ = bench.measured(lambda: bench.k.execute(BATCH, mode="blocks"))
        assert bench.stats()["calls"] - before >= 1000
        cpus.append(cpu)
        walls.append(wall)
    print(
        f"\n1000 sub-calls in one batch: {min(cpus):.2f} to {max(cpus):.2f} s CPU,"
        f" {min(walls):.2f} to {max(walls):.2f} s"
    )
    _keep(BATCH_OF, walls, [1000 * cpu for cpu in cpus])


def batch_apart(runs: int) -> None:
    """The same, the model on a node of its own: what is left is the coordinator and the cell."""
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        folder = Path(made)
        url = stack.enter_context(open_server(folder, SCRIPT))
        cluster = LocalCluster(folder)
        stack.callback(cluster.stop)
        leads = cluster.start("leads", "--no-mdns")
        leads.wait_until_up()
        joins = ("--join", leads.invite(uses=1), "--no-mdns", "--roles", "infer")
        has_it = cluster.start("has-it", *joins, "--backend", url)
        cluster.wait_until_met()
        k = stack.enter_context(Kowalski.builder().with_node(leads.data_dir).build())
        processes = [psutil.Process(node.process.pid) for node in (leads, has_it)]
        walls, cpus = [], []
        for run in range(runs + 1):  # the first one learns how quick the model is
            before, began = [_cpu_s(one) for one in processes], time.perf_counter()
            k.execute(BATCH, mode="blocks", failover="queue")
            if run:
                walls.append(time.perf_counter() - began)
                cpus.append([_cpu_s(one) - was for one, was in zip(processes, before, strict=True)])
    for what, values in zip((BATCH_LED, BATCH_THOUGHT), zip(*cpus, strict=True), strict=True):
        print(f"{what[:-4]}: {min(values):.2f} to {max(values):.2f} s CPU", flush=True)
        _keep(what, walls, [1000 * value for value in values])


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def tree(bench: Bench) -> None:
    before = bench.stats()["calls"]
    cpu, wall, result = bench.measured(
        lambda: bench.k.execute("the whole tree", mode="rlm", depth=2)
    )
    served = bench.stats()["calls"] - before
    assert isinstance(result, ExecutionResult)
    told = result.metrics
    print(
        f"\na tree of depth 2, 10 children: {told.children} sessions below the root; reported"
        f" {told.calls} calls, {told.attempts} requests; the server counted {served};"
        f" {cpu:.2f} s CPU, {wall:.1f} s"
    )


def long_context(bench: Bench, megabytes: int) -> None:
    lines = megabytes * 1_000_000 // len(HAY)
    hay = HAY * (lines // 2) + NEEDLE + HAY * (lines - lines // 2)
    before, peak = _disk_bytes(bench.data_dir), 0
    cpu, wall, result = bench.measured(
        lambda: bench.k.execute("find it", mode="rlm", context=hay, cell_timeout_s=120.0)
    )
    peak = bench.node.memory_info().rss
    right = result.text == f"{NEEDLE.strip()} of {lines + 1} lines"
    grown = (_disk_bytes(bench.data_dir) - before) / 1e6
    print(
        f"{megabytes:4} MB: {'exact' if right else result.text[:60]}; {wall:.1f} s,"
        f" {cpu:.2f} s CPU of the node, RSS {peak / 1e6:.0f} MB, disk +{grown:.1f} MB"
    )


def log_growth(bench: Bench) -> None:
    context = HAY * (10_000_000 // len(HAY))
    before = _disk_bytes(bench.data_dir)
    bench.k.execute("go on", mode="rlm", context=context, max_iterations=20)
    grown = (_disk_bytes(bench.data_dir) - before) / 1e6
    print(f"\n20 turns over 10 MB: journal and blobs {grown:.2f} MB")


def cancel(bench: Bench) -> None:
    task = Task("```python\nimport time; time.sleep(60)\n```", "slow", mode="blocks")
    with bench.k.subscribe_to_progress("slow") as updates:
        import threading  # noqa: PLC0415

        ended: list[float] = []

        def work() -> None:
            bench.k.execute_batch([task])
            ended.append(time.perf_counter())

        thread = threading.Thread(target=work)
        thread.start()
        next(update for update in updates if update.kind == "cell")
        began = time.perf_counter()
        bench.k.cancel_task("slow")
        thread.join(30)
    print(f"\ncancelling a cell of 60 s: over after {ended[0] - began:.2f} s")


def many(bench: Bench, count: int) -> None:
    tasks = [Task("ECHO: x", mode="direct") for _ in range(count)]
    cpu, wall, results = bench.measured(lambda: bench.k.execute_batch(tasks))
    failed = sum(isinstance(one, RLMError) for one in results)
    print(
        f"\n{count} tasks of one call: {count / wall:.0f} tasks/s, {1000 * cpu / count:.1f} ms CPU"
        f" each, {failed} failed"
    )
    _keep("tasks of one call, in one batch (a second)", [count / wall], [1000 * cpu / count])


def peers(programs: dict[str, Path]) -> None:
    """Others beside us, each against a model server of its own that speaks as it reads."""
    for name, python in programs.items():
        print(f"\n{name}, {python}: turns, CPU ms, clock ms; or a batch of 1000, s", flush=True)
        counts = TURNS if name == "dspy" else TURNS[:3]  # the others grow with the square
        _peer(name, python, "turns", rlm_peers.SAYS[name], *map(str, counts))
        if name in rlm_peers.BATCHED:
            _peer(name, python, "batch", rlm_peers.BATCHED[name])


def _peer(name: str, python: Path, what: str, says: str, *counts: str) -> None:
    script = {"root": [says], "otherwise": says}
    command = [python, "-P", ROOT / "benchmarks" / "rlm_peers.py", name]
    with tempfile.TemporaryDirectory() as made, open_server(Path(made), script) as url:
        try:
            ended = subprocess.run(
                [*command, url, what, *counts],
                check=False,
                timeout=PEER_S_MAX,
                capture_output=True,
                text=True,
            )
        except subprocess.TimeoutExpired:
            figures.report_failure(name, f"{what} not done within {PEER_S_MAX:.0f} s")
            return
        served = stats_of(url)["calls"]
    print(ended.stdout, end=f"({served} calls served)\n", flush=True)
    if ended.returncode:
        figures.report_failure(name, ended.stderr.strip()[-300:])
    for line in ended.stdout.splitlines():
        match line.split():
            case ["batch", cpu, wall]:
                _keep(BATCH_OF, [float(wall)], [1000 * float(cpu)], peer=name)
            case [count, cpu, wall] if count.isdecimal():
                _keep(TURN.format(count), [float(wall)], [float(cpu)], peer=name)
            case _:
                pass


def _keep(
    what: str, values: list[float], cpu_ms: list[float] | None = None, peer: str = figures.OURS
) -> None:
    """What was printed here in a form of its own, for `python -m benchmarks`."""
    cpu = statistics.median(cpu_ms) if cpu_ms else None
    middle = statistics.median(values)
    figures.record(figures.Figure(what, middle, min(values), max(values), peer, cpu))


def _disk_bytes(folder: Path) -> int:
    """On the disk: what has two names there is counted once."""
    found = {(path.stat().st_dev, path.stat().st_ino): path.stat() for path in folder.rglob("*")}
    return sum(one.st_blocks * 512 for one in found.values())


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.rlm", description=__doc__)
    arguments.add_argument("--runs", type=int, default=3)
    arguments.add_argument("--megabytes", type=int, nargs="*", default=[1, 10])
    arguments.add_argument("--tasks", type=int, default=200)
    arguments.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    arguments.add_argument("--only", choices=("peers", "batch"))
    options = arguments.parse_args()
    print(machine.describe(), flush=True)
    if options.only != "peers":
        with tempfile.TemporaryDirectory() as made, open_bench(Path(made)) as bench:
            ours(bench, options)
    named = (given.partition("=") for given in options.peer)
    peers({name: Path(python) for name, _, python in named})


def ours(bench: Bench, options: argparse.Namespace) -> None:
    if options.only == "batch":
        batch(bench, options.runs)
        batch_apart(options.runs)
        return
    machine_alone(options.runs)
    turns(bench, options.runs)
    batch(bench, options.runs)
    batch_apart(options.runs)
    tree(bench)
    print("\na needle and a count in a long context")
    for megabytes in options.megabytes:
        long_context(bench, megabytes)
    log_growth(bench)
    cancel(bench)
    many(bench, options.tasks)


if __name__ == "__main__":
    main()
