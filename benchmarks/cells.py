"""What a cell costs, by tier and beside what a user would pick: `python -m benchmarks.cells`.

Ours: sessions opened in this process, as root or as whoever runs this, in every tier that works
here; then programs through a whole node and over libp2p, with and without a sandbox. Beside it a
process for each program, and with `--peer NAME=PYTHON` (an interpreter that has it) ipykernel,
Dask, Ray, Celery and NATS, which run the same code strings without any sandbox. Medians of all
runs, with the least and the most of the runs' medians; processor time is that of all processes
involved.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from benchmarks import figures, machine
from benchmarks.cell_peers import ASSIGN, AT_ONCE, LONGER, PEERS, PROGRAM, WORKERS, tree_cpu_s
from kowalski.node.local_cluster import LocalCluster, LocalNode
from kowalski.node.repl.detection import detect_sandbox, tiers
from kowalski.node.repl.kernel_session import KernelSession
from kowalski.node.repl.sandbox import Sandbox, interpreter_prefix
from kowalski.node.repl.seam import CellOutcome, ReplSession, SubCall, SubCallResult
from kowalski.node.repl.sessions import KernelHost, open_sessions_host
from kowalski.node.repl.unsandboxed import Unsandboxed

PEER_S_MAX = 300.0
WHATS = {
    "first cold": "first cell, nothing started yet",
    "first new": "first cell, no warm kernel waits",
    "first": "first cell on a warm kernel",
    "round trip": "one more cell, `x = 1`",
    "question": "a question and its answer",
    "program": "one program, one after the other",
    "at once": f"{AT_ONCE} programs of 30 ms at once",
    "throughput": f"one program of many, {WORKERS} at a time",
}


@dataclass(slots=True)
class Row:
    """All that was measured of one thing in one place: a median and CPU time for each run."""

    medians_ms: list[float] = field(default_factory=list[float])
    cpu_ms: list[float] = field(default_factory=list[float])


Table = dict[tuple[str, str], Row]
Act = Callable[[], Awaitable[object]]


def keep(table: Table, where: str, what: str, walls_ms: list[float], cpu_ms: float) -> None:
    row = table.setdefault((where, what), Row())
    row.medians_ms.append(statistics.median(walls_ms))
    row.cpu_ms.append(cpu_ms)


@dataclass(frozen=True, slots=True)
class Place:
    """Where our cells run, and where the figures go."""

    name: str
    table: Table
    times: int
    owns_pids: bool
    unseen_s: list[float] = field(default_factory=list[float])
    """Processor time of sessions about to be killed. The system forgets it with their namespace."""

    def saw_end_of(self, session: KernelSession) -> None:
        root = session._kernel.tree.root() if self.owns_pids else None  # noqa: SLF001 - where the tree is
        if root is not None:
            self.unseen_s.append(tree_cpu_s(int(root.parent.name)))

    def cpu_s(self) -> float:
        return tree_cpu_s(os.getpid()) + sum(self.unseen_s)

    async def report(self, what: str, act: Act, times: int = 0, *, each: int = 1) -> None:
        await act()
        walls: list[float] = []
        before = self.cpu_s()
        for _ in range(times or self.times):
            began = time.perf_counter()
            await act()
            walls.append((time.perf_counter() - began) * 1000 / each)
        cpu_ms = (self.cpu_s() - before) * 1000 / len(walls) / each
        keep(self.table, self.name, what, walls, cpu_ms)


async def run_cell(session: ReplSession, code: str) -> CellOutcome:
    async def echo(calls: tuple[SubCall, ...]) -> tuple[SubCallResult, ...]:
        await trio.lowlevel.checkpoint()
        return tuple(SubCallResult(text=call.prompt) for call in calls)

    outcome = await session.run_cell(
        code, timeout_s=60, on_output=lambda _stream, _data: None, on_sub_calls=echo
    )
    assert outcome.status == "ok", outcome
    return outcome


async def run_program(host: KernelHost, code: str, place: Place) -> None:
    session = await host.open("python", {}, 0)
    await run_cell(session, code)
    place.saw_end_of(session)
    await session.close()


async def in_parallel(acts: int, at_once: int, act: Act) -> None:
    limiter = trio.CapacityLimiter(at_once)

    async def one() -> None:
        async with limiter:
            await act()

    async with trio.open_nursery() as nursery:
        for _ in range(acts):
            nursery.start_soon(one)


@asynccontextmanager
async def opened(sandbox: Sandbox, *, warm: int = 0) -> AsyncIterator[KernelHost]:
    wanted = {"python": warm} if warm else {}
    async with open_sessions_host(sandbox, {"python": ""}, slots=AT_ONCE, warm=wanted) as host:
        await until_warm(host, warm)
        yield host


async def until_warm(host: KernelHost, kernels: int) -> None:
    while host.warm_ready < kernels:  # noqa: ASYNC110 - it tells nobody
        await trio.sleep(0.001)


async def measure_sessions(sandbox: Sandbox, place: Place) -> None:
    async def cold() -> None:
        async with opened(sandbox) as host:
            await run_program(host, ASSIGN, place)

    await place.report("first cold", cold, 5)
    async with opened(sandbox) as host:
        await place.report("first new", lambda: run_program(host, ASSIGN, place))
        session = await host.open("python", {}, 0)
        await place.report("round trip", lambda: run_cell(session, ASSIGN))
        await place.report("question", lambda: run_cell(session, "llm_query('?')"))
        await session.close()
        longer = partial(run_program, host, LONGER, place)
        await place.report("at once", lambda: in_parallel(AT_ONCE, AT_ONCE, longer), 3)
    async with opened(sandbox, warm=2) as host:
        await measure_warm(host, place)
        await place.report("program", lambda: run_program(host, PROGRAM, place))
        count, program = WORKERS * 10, partial(run_program, host, PROGRAM, place)
        flood = partial(in_parallel, count, WORKERS, program)
        await place.report("throughput", flood, 1, each=count)


async def measure_warm(host: KernelHost, place: Place) -> None:
    """Opening and the first cell, with a kernel that waits; what comes after is not counted."""
    walls: list[float] = []
    before = place.cpu_s()
    for _ in range(place.times):
        await until_warm(host, 2)
        began = time.perf_counter()
        session = await host.open("python", {}, 0)
        await run_cell(session, ASSIGN)
        walls.append((time.perf_counter() - began) * 1000)
        place.saw_end_of(session)
        await session.close()
    cpu_ms = (place.cpu_s() - before) * 1000 / place.times
    keep(place.table, place.name, "first", walls, cpu_ms)


async def working_tiers() -> dict[str, Sandbox]:
    found: dict[str, Sandbox] = {}
    for name, find in tiers():
        verdict = await detect_sandbox(candidates=[(name, find)])
        if verdict.sandbox is None:
            print(f"no tier {name!r} here: {verdict.reason}", flush=True)
        else:
            found[name] = verdict.sandbox
    _, interpreter = interpreter_prefix()
    return {**found, "no sandbox": Unsandboxed(interpreter)}


# --- whole nodes --------------------------------------------------------------------------------


def measure_nodes(table: Table, times: int, *, is_safe: bool) -> None:
    """Programs asked of a node over its socket, run by itself or by a peer over libp2p."""
    kind = "sandboxed" if is_safe else "unsafe"
    unsafe = () if is_safe else ("--unsafe-repl",)
    with tempfile.TemporaryDirectory() as made:
        cluster = LocalCluster(Path(made))
        try:
            worker = cluster.start("worker", *unsafe)
            worker.wait_until_up()
            asker = cluster.start("asker", "--no-repl", "--join", worker.invite(uses=1))
            cluster.wait_until_met()
            measure_programs(table, f"node itself, {kind}", worker, times)
            measure_programs(table, f"node's peer, {kind}", asker, times)
        finally:
            cluster.stop()


def measure_programs(table: Table, where: str, asker: LocalNode, times: int) -> None:
    request = {"language": "python", "code": PROGRAM, "timeout_s": 30.0}
    walls, over, before = list[float](), list[float](), 0.0
    for at in range(times + 5):
        if at == 5:
            before = tree_cpu_s(os.getpid())
        began = time.perf_counter()
        done = asker.ask("run", request)
        if at >= 5:
            walls.append((time.perf_counter() - began) * 1000)
            over.append(walls[-1] - float(str(done["duration_s"])) * 1000)
    cpu_ms = (tree_cpu_s(os.getpid()) - before) * 1000 / times
    keep(table, where, "program", walls, cpu_ms)
    keep(table, where, "over the program's own time", over, cpu_ms)


# --- others -------------------------------------------------------------------------------------


def measure_peer(table: Table, name: str, python: str, times: int) -> str:
    """What it is, or why there is nothing of it."""
    with tempfile.TemporaryDirectory() as home:
        ended = subprocess.run(
            [python, "-m", "benchmarks.cell_peers", name, "--times", str(times)],
            env={**os.environ, "HOME": home, "PYTHONWARNINGS": "ignore"},
            cwd=Path(__file__).resolve().parents[1],
            capture_output=True,
            text=True,
            check=False,
            timeout=PEER_S_MAX,
        )
    version = ""
    for line in ended.stdout.splitlines():
        if not line.startswith("{"):
            continue
        told = json.loads(line)
        version = told.get("version", version)
        if "walls_ms" in told:
            keep(table, name, told["what"], told["walls_ms"], told["cpu_ms"])
    if ended.returncode:
        figures.report_failure(name, (ended.stderr.strip() or "?")[-200:])
    return f"{name} {version}"


def show(table: Table) -> None:
    print(f"\n{'what':44} {'where':28} {'wall ms':>9} {'least':>8} {'most':>8} {'CPU ms':>8}")
    order = [*WHATS, "over the program's own time"]
    for (where, what), row in sorted(table.items(), key=lambda item: order.index(item[0][1])):
        middle, cpu = statistics.median(row.medians_ms), statistics.median(row.cpu_ms)
        least, most = min(row.medians_ms), max(row.medians_ms)
        words = WHATS.get(what, what)
        print(f"{words:44} {where:28} {middle:9.2f} {least:8.2f} {most:8.2f} {cpu:8.2f}")
        peer = where if where in PEERS else f"{figures.OURS}, {where}"
        figures.record(figures.Figure(f"{words} (ms)", middle, least, most, peer, cpu))


def named(text: str) -> tuple[str, str]:
    """The type of `--peer`: NAME=PYTHON."""
    name, equals, python = text.partition("=")
    if not equals or name not in PEERS:
        raise argparse.ArgumentTypeError(f"{text}: NAME=PYTHON, one of {', '.join(PEERS)}")
    return name, python


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.cells", description=__doc__)
    arguments.add_argument("--runs", type=int, default=3)
    arguments.add_argument("--times", type=int, default=50, help="each thing in a run (default 50)")
    arguments.add_argument(
        "--peer", type=named, action="append", default=[], metavar="NAME=PYTHON", help="has it"
    )
    arguments.add_argument("--tier", action="append", help="of sandboxes, these alone")
    arguments.add_argument("--no-nodes", action="store_true", help="sessions alone")
    options = arguments.parse_args()
    print(machine.describe(), f"as uid {os.geteuid()}", sep="\n", flush=True)
    table: Table = {}
    sandboxes = trio.run(working_tiers)
    if options.tier:
        sandboxes = {name: one for name, one in sandboxes.items() if name in options.tier}
    peers = {"subprocess": sys.executable, **dict(options.peer)}
    for _ in range(options.runs):
        for name, sandbox in sandboxes.items():
            place = Place(name, table, options.times, sandbox.owns_pids)
            trio.run(measure_sessions, sandbox, place)
        if not options.no_nodes:
            for is_safe in (True, False):
                measure_nodes(table, options.times, is_safe=is_safe)
        for name, python in peers.items():
            print(measure_peer(table, name, python, options.times), flush=True)
    show(table)


if __name__ == "__main__":
    main()
