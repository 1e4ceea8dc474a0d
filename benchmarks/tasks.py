"""What tasks cost, and what a lost device costs them: `python -m benchmarks.tasks`.

The ledger on this disk; null tasks through a mesh of three real processes; kills of coordinators
and executors among eight simulated nodes, in virtual time: what waits and timeouts add up to,
without this machine's speed.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog
import trio

from benchmarks import machine
from benchmarks.figures import Figure, record
from kowalski.node.core.task_ledger import Task
from kowalski.node.local_cluster import LocalCluster, LocalNode
from kowalski.node.storage import open_ledger_storage
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.journal import CellStarted
from kowalski.protocol.messages.task import TaskSpec
from kowalski.rlm.journal import digest, entry_of, event_of
from simulations.virtual_time import JumpingClock
from simulations.world import Part, World, open_world

CELLS = 8
NULL = "nothing to do"
SOMEBODY = PeerId("12D3KooWwhoever1111")
SIMULATED = (
    Part(languages={}, roles=("submit",)),
    *[Part(languages={}, roles=("coordinate",))] * 3,
    *[Part(roles=("repl",))] * 4,
)


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.tasks", description=__doc__)
    arguments.add_argument("--writes", type=int, default=2000, help="to the ledger (2000)")
    arguments.add_argument("--tasks", type=int, default=300, help="null tasks (300)")
    arguments.add_argument("--kills", type=int, default=30, help="of each kind, simulated (30)")
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    print(machine.describe())
    print(f"\n{'what':64} {'p50':>9} {'p99':>9} {'most':>9}")
    with tempfile.TemporaryDirectory() as made:
        _report("ledger: one entry, durable (ms)", _writes(Path(made), options.writes))
        if options.tasks:
            _null_tasks(Path(made) / "null", options.tasks)
        for what, is_silent in (("killed", False), ("without power", True)):
            if options.kills:
                _simulated(what, options.kills, options.seed, is_silent=is_silent)


def _report(what: str, values: Iterable[float]) -> None:
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]
    p50 = statistics.median(ordered)
    print(f"{what:64} {p50:9.3f} {p99:9.3f} {ordered[-1]:9.3f}", flush=True)
    record(Figure(what, p50, ordered[0], ordered[-1]))


# --- the ledger ---------------------------------------------------------------------------------


def _writes(folder: Path, count: int) -> list[float]:
    spec = TaskSpec(prompt="do it", mode="blocks", max_iterations=5, timeout_s=60.0)
    task = Task(TaskId("t"), spec, 0, state="running", term=1)
    started = CellStarted(cell=0, language="python", code="x = 1\n" * 40, peer=SOMEBODY, why="")
    took_ms: list[float] = []
    with open_ledger_storage(folder / "ledger.sqlite") as storage:
        storage.save(task)
        for _ in range(count):
            entry = entry_of(1, task.entries, task.last_digest, started)
            mark = digest(task.id, entry)
            task = replace(task, entries=task.entries + 1, digests=(mark,))
            began = time.perf_counter()
            storage.append(task, entry, mark)
            took_ms.append(1000 * (time.perf_counter() - began))
    return took_ms


# --- null tasks ---------------------------------------------------------------------------------


def _null_tasks(folder: Path, count: int) -> None:
    """Tasks without a block of code: taken in, granted, ended, settled, and nothing more."""
    cluster = LocalCluster(folder)
    try:
        (asker, *_) = _form(cluster, dict.fromkeys("abc", "submit,coordinate,repl"))
        took_s: list[float] = []

        def submit(number: int) -> None:
            began = time.perf_counter()
            done = asker.ask(
                "submit", {"prompt": NULL, "mode": "blocks", "task_id": f"null-{number}"}
            )
            assert str(done["reason"]).startswith("no_blocks"), done
            took_s.append(time.perf_counter() - began)

        for at_a_time in (1, 16):
            took_s.clear()
            began = time.perf_counter()
            with ThreadPoolExecutor(at_a_time) as pool:
                part = count // (1 if at_a_time > 1 else 5)
                list(pool.map(submit, range(at_a_time * 10_000, at_a_time * 10_000 + part)))
            rate = part / (time.perf_counter() - began)
            _report(f"null tasks, 3 nodes, {at_a_time} at a time: {rate:.0f} a second (s)", took_s)
    finally:
        cluster.stop()


def _form(cluster: LocalCluster, roles: dict[str, str]) -> list[LocalNode]:
    (first, *others) = roles
    cluster.start(first, "--no-http", "--roles", roles[first])
    cluster.named(first).wait_until_up()
    line = cluster.named(first).invite(uses=len(others))
    for name in others:
        cluster.start(name, "--no-http", "--roles", roles[name], "--join", line)
    cluster.wait_until_met(120.0)
    return [cluster.named(name) for name in roles]


# --- losses, simulated --------------------------------------------------------------------------


@dataclass
class Losses:
    """Of one kind. `gaps_s`: from each loss to the next cell that begins."""

    gaps_s: list[float] = field(default_factory=list[float])
    ran: int = 0
    visible: int = 0

    def report(self, what: str) -> None:
        share = self.ran / self.visible if self.visible else 0.0
        _report(f"{what}, to the next cell (s); {share:.2f} runs a cell", self.gaps_s)


def _simulated(what: str, kills: int, seed: int, *, is_silent: bool) -> None:
    for role in ("coordinator", "executor"):
        losses = Losses()
        trio.run(_lose, losses, role, kills, seed, is_silent, clock=JumpingClock())
        losses.report(f"8 simulated nodes, {kills} times {role} {what}")
    if not is_silent:
        losses = Losses()
        trio.run(_lose, losses, "nobody", kills, seed, False, clock=JumpingClock())
        print(f"{'  without losses, runs a cell':64} {losses.ran / losses.visible:9.2f}")


async def _lose(losses: Losses, role: str, kills: int, seed: int, is_silent: bool) -> None:  # noqa: FBT001 for trio.run
    draw = random.Random(seed)
    async with open_world(SIMULATED, seed=seed) as world:
        for number in range(kills):
            await world.meet()
            before = len(world.cells)
            task = world.submit(0, _prompt("wait 0.3\nsay {}"), mode="blocks", task=f"t{number}")
            await world.until(lambda before=before: len(world.cells) >= before + 2)  # type: ignore[misc]
            await trio.sleep(draw.uniform(0.0, 1.0))
            lost = _somebody(world, task, role)
            if lost is not None:
                ran, at = len(world.cells), trio.current_time()
                await world.kill(lost, is_silent=is_silent)
                await world.until(lambda ran=ran: len(world.cells) > ran)  # type: ignore[misc]
                losses.gaps_s.append(trio.current_time() - at)
            result = await world.result(0, task)
            assert result.state == "answered", result
            losses.ran += len(world.cells) - before
            losses.visible += CELLS
            if lost is not None:
                await world.start(lost)


def _prompt(cell: str) -> str:
    blocks = (f"```python\n{cell.format(number)}\n```" for number in range(CELLS))
    return "\n\n".join(blocks)


def _somebody(world: World, task: TaskId, role: str) -> int | None:
    if role == "coordinator":
        return world.number_of(world[0].submitter.find(task).coordinator)
    if role == "executor":
        events = (event_of(entry) for entry in world[0].submitter.entries(task))
        started = [event for event in events if isinstance(event, CellStarted)]
        return world.number_of(started[-1].peer)
    return None


if __name__ == "__main__":
    main()
