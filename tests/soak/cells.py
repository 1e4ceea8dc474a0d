"""Ten thousand cells on one node: `python -m tests.soak.cells` (`make soak`).

Through the room that peers ask, on real sandboxed sessions, several tasks at a time. Most cells are
everyday ones; some end their session in every way there is. Memory and descriptors of the node and
of its fork server must be at the end what they were early on. A seed repeats the same cells.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import trio

from kowalski.node.repl.limits import MIB, CellLimits, Limits, SessionLimits
from kowalski.node.repl.process_tree import tree_of
from tests.node.repl.rooms import until
from tests.node.services.real_room import RealRoom, cell, open_real_room

CELLS = 10_000
TASKS_AT_ONCE = 4
SESSION_CELLS_MAX = 30
GROWTH_BYTES_MAX = 24 * MIB
"""Of the node's resident memory between a quarter of the way and the end."""
LOOKS = 20
LIMITS = Limits(
    cell=CellLimits(output_bytes_max=MIB, interrupt_grace_s=0.2),
    session=SessionLimits(memory_bytes=256 * MIB, process_memory_bytes=128 * MIB),
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of cell: how often it comes among a thousand, and how it may end."""

    name: str
    share: int
    code: str
    ends: tuple[str, ...] = ("ok",)
    timeout_s: float = 60.0


KINDS = (
    Kind("assigns", 400, "count = globals().get('count', 0) + 1; count"),
    Kind("prints", 200, "for i in range(20): print(i, 'of', 20, flush=True)"),
    Kind("asks", 150, "answer = llm_query('what?'); llm_query_batched(['a', 'b'])"),
    Kind("writes files", 100, "for i in range(3): open(f'f{i}', 'w').write(str(i) * 5000)"),
    Kind("fails", 60, "1 / 0", ("error",)),
    Kind("starts processes", 40, "import subprocess; subprocess.run(['true'])"),
    Kind("leaves a child", 10, "import subprocess; subprocess.Popen(['sleep', '60'])"),
    Kind("ends its session", 20, "import os; os._exit(3)", ("died",)),
    Kind("takes too long", 5, "import time; time.sleep(60)", ("timeout",), 0.1),
    Kind("heeds nothing", 3, "while True:\n try:\n  while True: pass\n except BaseException: pass",
         ("timeout", "died"), 0.1),
    Kind("floods", 6, "while True: print('x' * 1000)", ("output_flood",)),
    Kind("takes memory", 6, "x = []\nwhile True: x.append(bytearray(1 << 22))", ("memory", "died")),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Look:
    """What the node and its children hold at one moment with nothing under way."""

    cells: int
    resident_bytes: int
    descriptors: int
    children: int
    children_bytes: int


@dataclass(slots=True)
class Tally:
    seed: int
    ended: Counter[str] = field(default_factory=Counter[str])
    complaints: list[str] = field(default_factory=list[str])
    looks: list[Look] = field(default_factory=list[Look])
    took_s: float = 0.0

    @property
    def cells(self) -> int:
        return self.ended.total()


def look(cells: int) -> Look:
    me = psutil.Process()
    below = [pid for pid in tree_of(me.pid) if pid != me.pid]
    weights = [psutil.Process(pid).memory_info().rss for pid in below]
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    return Look(cells, me.memory_info().rss, descriptors, len(below), sum(weights))


def sessions(draw: random.Random, cells: int) -> Iterator[list[Kind]]:
    shares = [kind.share for kind in KINDS]
    while cells > 0:
        count = min(cells, draw.randint(1, SESSION_CELLS_MAX))
        cells -= count
        yield draw.choices(KINDS, shares, k=count)


async def run_session(room: RealRoom, task: str, kinds: list[Kind], tally: Tally) -> None:
    """A task's cells one after the other; where the session ends, the next begins anew."""
    number, whole = 0, task
    for turn, kind in enumerate(kinds):
        heard = await room.run(cell(kind.code, task=whole, number=number, timeout_s=kind.timeout_s))
        done = heard.done
        tally.ended[done.status] += 1
        if done.status not in kind.ends:
            tally.complaints.append(f"{kind.name}: {done.status}: {(done.error or '')[-300:]}")
        number += 1
        if not done.is_session_alive:
            await room.close(whole)
            number, whole = 0, f"{task}-{turn}"
    await room.close(whole)


def _children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


async def soak(
    cells: int, seed: int, folder: Path, on_look: Callable[[Look], None] = lambda _: None
) -> Tally:
    tally = Tally(seed)
    began = time.monotonic()
    others = _children()
    coming = enumerate(sessions(random.Random(seed), cells))
    async with open_real_room(
        folder, slots=TASKS_AT_ONCE, warm={"python": 2}, limits=LIMITS
    ) as room:

        async def work(until: int) -> None:
            while tally.cells < until:
                number, kinds = next(coming, (0, []))
                if not kinds:
                    return
                await run_session(room, f"task-{number}", kinds, tally)

        for leg in range(1, LOOKS + 1):
            async with trio.open_nursery() as nursery:
                for _ in range(TASKS_AT_ONCE):
                    nursery.start_soon(work, cells * leg // LOOKS)
            await until(lambda: room.host.warm_ready == 2 and room.host.slots_free == TASKS_AT_ONCE)
            tally.looks.append(look(tally.cells))
            on_look(tally.looks[-1])
    tally.took_s = time.monotonic() - began
    tally.complaints += complaints_of(tally.looks)
    left = [path.name for path in (folder / "scratch").iterdir()]
    children = [child for child in _children() if child not in others]
    if left or children:
        tally.complaints.append(f"left behind: {left}, {children}")
    return tally


def complaints_of(looks: list[Look]) -> list[str]:
    early, last = looks[len(looks) // 4], looks[-1]
    found = []
    if last.resident_bytes - early.resident_bytes > GROWTH_BYTES_MAX:
        grown = last.resident_bytes - early.resident_bytes
        found.append(f"memory has grown by {grown / MIB:.1f} MiB since cell {early.cells}")
    if last.children_bytes - early.children_bytes > GROWTH_BYTES_MAX:
        grown = last.children_bytes - early.children_bytes
        found.append(f"memory of children has grown by {grown / MIB:.1f} MiB")
    if last.descriptors > early.descriptors:
        found.append(f"{last.descriptors} descriptors, {early.descriptors} at cell {early.cells}")
    if last.children > early.children:
        found.append(f"{last.children} processes, {early.children} at cell {early.cells}")
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m tests.soak.cells", description=__doc__)
    arguments.add_argument("--cells", type=int, default=CELLS)
    arguments.add_argument("--seed", type=int, default=secrets.randbits(32))
    options = arguments.parse_args()
    say(f"python -m tests.soak.cells --cells {options.cells} --seed {options.seed}")
    say(f"{'cells':>8} {'resident':>10} {'open':>6} {'children':>9} {'of theirs':>10}")
    with TemporaryDirectory() as made:
        tally = trio.run(soak, options.cells, options.seed, Path(made), show)
    rate = tally.cells / tally.took_s
    say(f"{tally.cells} cells in {tally.took_s:.1f} s, {rate:.0f} a second: {dict(tally.ended)}")
    for complaint in tally.complaints:
        say(complaint)
    sys.exit(1 if tally.complaints else 0)


def show(seen: Look) -> None:
    say(
        f"{seen.cells:8} {seen.resident_bytes / MIB:7.1f}MiB {seen.descriptors:6}"
        f" {seen.children:9} {seen.children_bytes / MIB:7.1f}MiB"
    )


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
