"""What a model call costs in functions called: `python -m benchmarks.calls`.

Milliseconds of a busy machine cannot be compared, calls can. Nodes under cProfile, which say what
they have counted before and after so many requests; the difference, by where the functions are.
"""

from __future__ import annotations

import argparse
import cProfile
import marshal
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import machine
from benchmarks.asking import HELLO, STREAMED, model_server, taken_s
from benchmarks.http import door_of
from kowalski.node.local_cluster import LocalNode

Calls = Counter[tuple[str, int, str]]
"""How often each function was called, by file, line and name."""

WARM_UP = 50
SAID_S = 20.0
NODE = ("--p2p-port", "0", "--http-port", "0", "--listen-host", "127.0.0.1", "--no-mdns")


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.calls", description=__doc__)
    arguments.add_argument("--requests", type=int, default=200)
    arguments.add_argument("--top", type=int, default=0, help="functions to show of each figure")
    options = arguments.parse_args()
    print(machine.describe())
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        server = stack.enter_context(model_server())
        beside = ("--backend", server.backend, "--no-repl")
        near = stack.enter_context(_profiled(Path(made), "near", *beside))
        joining = ("--join", near.invite(uses=1), "--roles", "submit,coordinate")
        far = stack.enter_context(_profiled(Path(made), "far", *joining))
        time.sleep(3)  # until what near has is known to far
        for name, door, nodes in (("beside", near, (near,)), ("one hop", far, (far, near))):
            for what, prompt, count in (
                ("chat", HELLO, options.requests),
                ("stream of 64", STREAMED, max(1, options.requests // 10)),
            ):
                request = door_of(door).request(prompt, streams=prompt == STREAMED)
                taken_s(door_of(door), request, WARM_UP)
                before = [_counted(node) for node in nodes]
                taken_s(door_of(door), request, count)
                for node, was in zip(nodes, before, strict=True):
                    _tell(f"{what}, {name}: {node.name}", _counted(node) - was, count, options.top)


def _tell(title: str, calls: Calls, count: int, top: int) -> None:
    rooms: Counter[str] = Counter()
    for (file, _, _), times in calls.items():
        rooms[_room(file)] += times
    told = ", ".join(f"{room} {times / count:.0f}" for room, times in rooms.most_common(8))
    print(f"{title}: {calls.total() / count:.0f} calls a request: {told}", flush=True)
    for (file, line, name), times in calls.most_common(top):
        print(f"    {times / count:8.1f}  {'/'.join(file.split('/')[-3:])}:{line} {name}")


def _room(file: str) -> str:
    """The library that a file is of; `ours`, and what is built into Python."""
    parts = Path(file).parts
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1]
    if file.startswith(("~", "<")):
        return "built in"
    return "ours" if Path.cwd() in Path(file).parents else "standard library"


# --- nodes that count their calls ---------------------------------------------------------------


@contextmanager
def _profiled(folder: Path, name: str, *options: str) -> Iterator[LocalNode]:
    data_dir = folder / name
    data_dir.mkdir(mode=0o700)
    command = [sys.executable, "-c", "from benchmarks import calls; calls.count_of_node()"]
    command += ["start", "--data-dir", str(data_dir), "--name", name, *NODE, *options]
    with (data_dir / "node.log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    node = LocalNode(name, data_dir, process)
    try:
        node.wait_until_up()
        yield node
    finally:
        node.stop()


def count_of_node() -> None:
    """Be a node, in the process of one; SIGUSR1 writes what was counted to its data directory."""
    profile = cProfile.Profile()
    told = Path(sys.argv[sys.argv.index("--data-dir") + 1]) / "calls"

    def tell(_signal: int, _frame: object) -> None:
        profile.disable()
        profile.snapshot_stats()
        written = told.with_suffix(".new")
        written.write_bytes(marshal.dumps(profile.stats))  # type: ignore[attr-defined]
        written.rename(told)
        profile.enable()

    signal.signal(signal.SIGUSR1, tell)
    profile.enable()
    runpy.run_module("kowalski.node", run_name="__main__")


def _counted(node: LocalNode) -> Calls:
    told = node.data_dir / "calls"
    os.kill(node.process.pid, signal.SIGUSR1)
    give_up_at = time.monotonic() + SAID_S
    while not told.exists() and time.monotonic() < give_up_at:
        time.sleep(0.05)
    stats = marshal.loads(told.read_bytes())
    told.unlink()
    return Counter({function: numbers[1] for function, numbers in stats.items()})


if __name__ == "__main__":
    main()
