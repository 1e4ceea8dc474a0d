"""What a user waits for, and what an idle node costs: `python -m benchmarks.nodes`.

Real processes on loopback, real libp2p, real mDNS, the real sandbox. Medians, least and most.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks import machine
from benchmarks.figures import head, report
from kowalski.node.local_cluster import LocalCluster, LocalNode

PROGRAM = "print(6 * 7)"
IDLE_S = 20.0
KOWALSKI_NODE = Path(sysconfig.get_path("scripts")) / "kowalski-node"


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.nodes", description=__doc__)
    arguments.add_argument("--runs", type=int, default=5, help="of each figure (default 5)")
    arguments.add_argument("--programs", type=int, default=40, help="run on a remote peer")
    options = arguments.parse_args()
    print(machine.describe())
    print()
    head()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        report("install size, site-packages (MB)", [_install_megabytes()])
        report(
            "import kowalski.node.app, warm (s)", _imports(options.runs, "import kowalski.node.app")
        )
        load = "from kowalski.mesh.libp2p_loading import load_transport as load; load()"
        report("import the libp2p transport as nodes do, warm (s)", _imports(options.runs, load))
        report("command line cold, no node: status (s)", _cli(options.runs, folder / "nobody"))
        report("start to usable: process start to first reply (s)", _starts(options.runs, folder))
        report("discovery by mDNS, ready to routable both ways (s)", _meets(options.runs, folder))
        with _pair(folder / "pair") as (asker, worker):
            report(
                "command line cold, node running: status (s)", _cli(options.runs, asker.data_dir)
            )
            _programs(asker, options.programs)
            _idle((asker, worker))


def _timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _install_megabytes() -> float:
    folder = Path(sysconfig.get_path("purelib"))
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def _imports(runs: int, statement: str) -> list[float]:
    command = [sys.executable, "-c", statement]
    bare = [sys.executable, "-c", "pass"]
    base = min(_timed(lambda: subprocess.run(bare, check=True)) for _ in range(runs))
    return [_timed(lambda: subprocess.run(command, check=True)) - base for _ in range(runs)]


def _cli(runs: int, data_dir: Path) -> list[float]:
    command = [str(KOWALSKI_NODE), "status", "--data-dir", str(data_dir), "--json"]

    def call() -> None:
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return [_timed(call) for _ in range(runs)]


def _starts(runs: int, folder: Path) -> list[float]:
    values: list[float] = []
    for run in range(runs):
        cluster = LocalCluster(folder / f"start-{run}")
        try:
            values.append(_timed(lambda: cluster.start("one").wait_until_up()))  # noqa: B023 now
        finally:
            cluster.stop()
    return values


@contextmanager
def _pair(folder: Path) -> Iterator[tuple[LocalNode, LocalNode]]:
    """One node that runs no code, and one that does."""
    cluster = LocalCluster(folder)
    try:
        asker = cluster.start("asker", "--no-repl")
        asker.wait_until_up()
        worker = cluster.start("worker", "--join", asker.invite(uses=1))
        cluster.wait_until_met()
        yield asker, worker
    finally:
        cluster.stop()


def _meets(runs: int, folder: Path) -> list[float]:
    """Both forget each other's address; the worker comes back on another port."""
    values: list[float] = []
    cluster = LocalCluster(folder / "meet")
    try:
        asker = cluster.start("asker")
        asker.wait_until_up()
        worker = cluster.start("worker", "--join", asker.invite(uses=1))
        cluster.wait_until_met()
        for _ in range(runs):
            cluster.stop()
            for node in (asker, worker):
                (node.data_dir / "peers.json").unlink(missing_ok=True)
            asker, worker = cluster.start("asker"), cluster.start("worker")
            asker.wait_until_up()
            worker.wait_until_up()
            values.append(_timed(cluster.wait_until_met))
    finally:
        cluster.stop()
    return values


def _programs(asker: LocalNode, count: int) -> None:
    """One program on the other peer, sandboxed, again and again; warm."""
    request = {"language": "python", "code": PROGRAM, "timeout_s": 30.0}
    walls: list[float] = []
    own: list[float] = []
    for at in range(count + 5):
        began = time.perf_counter()
        done = asker.ask("run", request)
        if at >= 5:
            walls.append((time.perf_counter() - began) * 1000)
            own.append(float(str(done["duration_s"])) * 1000)
    report("one program on a remote peer, warm, sandboxed (ms)", walls)
    report("  of which the program itself (ms)", own)
    report("  over the program's own time (ms)", [w - o for w, o in zip(walls, own, strict=True)])


def _idle(nodes: tuple[LocalNode, ...]) -> None:
    processes = [psutil.Process(node.process.pid) for node in nodes]
    before = [sum(process.cpu_times()[:2]) for process in processes]
    time.sleep(IDLE_S)
    after = [sum(process.cpu_times()[:2]) for process in processes]
    shares = [100 * (b - a) / IDLE_S for a, b in zip(before, after, strict=True)]
    report(f"idle node in a mesh of two, CPU over {IDLE_S:g} s (% of a core)", shares)
    report("idle node, resident memory (MB)", [p.memory_info().rss / 1e6 for p in processes])


if __name__ == "__main__":
    main()
