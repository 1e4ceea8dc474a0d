"""A batch over devices of unlike speed: `python -m benchmarks.batches`.

Three nodes with a scripted model server each, whose every reply takes 10, 50 and 200 ms and which
answer one call at a time; a fourth node with a cell that asks 300 questions at once. Beside it the
ideal, every server busy from the first moment to the last, and what a client gets that hands the
calls out in turn, one under way at each server: it waits for the slowest.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import trio

from benchmarks import machine
from benchmarks.asking import Door, ModelServer, ask, model_server, stats_of
from benchmarks.figures import OURS, Table
from benchmarks.http import door_of
from kowalski.node.local_cluster import LocalCluster, LocalNode

DELAYS_S = (0.010, 0.050, 0.200)
CALLS = 300

IDEAL = "ideal"
TURNS = "in turn, without a mesh"
BATCH = f"{CALLS} calls on servers of 10, 50 and 200 ms (s)"
HTTP = f"the same {CALLS} as requests to the node, 32 at a time (s)"
TIMES = "times the ideal"

CELL = f"""```python
found = llm_query_batched([f'ECHO: {{n}}' for n in range({CALLS})])
assert found == [str(n) for n in range({CALLS})], found
```"""


@dataclass(frozen=True, slots=True)
class Devices:
    door: LocalNode
    nodes: tuple[LocalNode, ...]
    servers: tuple[ModelServer, ...]

    def calls(self) -> list[int]:
        """That each server has answered so far."""
        return [stats_of(one.url)["completed"] for one in self.servers]

    def cpu_s(self) -> float:
        """Of all four nodes."""
        times = [psutil.Process(node.process.pid).cpu_times() for node in self.nodes]
        return float(sum(one.user + one.system for one in times))


def ideal_s(delays_s: Sequence[float], calls: int) -> float:
    """The least time in which so many whole calls are answered, one at a time at each."""
    at = sorted(delay * (nth + 1) for delay in delays_s for nth in range(calls))
    return at[calls - 1]


@contextmanager
def open_devices(folder: Path, delays_s: Sequence[float] = DELAYS_S) -> Iterator[Devices]:
    with ExitStack() as stack:
        servers: list[ModelServer] = []
        for number, delay_s in enumerate(delays_s):
            script = folder / f"script-{number}.json"
            script.write_text(json.dumps({"otherwise": {"delay_per_token_s": delay_s}}))
            options = ("--flavour", "ollama", "--script", str(script))
            servers.append(stack.enter_context(model_server(*options, slots=1)))
        cluster = LocalCluster(folder)
        stack.callback(cluster.stop)
        door = cluster.start("door", "--no-mdns", "--unsafe-repl")
        door.wait_until_up()
        line = door.invite(uses=len(servers))
        nodes = [door]
        for number, server in enumerate(servers):
            # All tasks are led from the door, which so knows from the second one who is quick.
            backend = ("--backend", server.url, "--roles", "infer", "--no-mdns")
            nodes.append(cluster.start(f"thinker-{number}", "--join", line, *backend))
        cluster.wait_until_met()
        time.sleep(2)  # until what they have is known
        yield Devices(door, tuple(nodes), tuple(servers))


def in_turn_s(servers: Sequence[ModelServer], calls: int) -> float:
    """Each server gets every n-th call."""

    async def main() -> None:
        async def share(server: ModelServer, first: int) -> None:
            door = Door(server.port)
            async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
                for number in range(first, calls, len(servers)):
                    await ask(stream, door.request(f"ECHO: {number}"))

        async with trio.open_nursery() as nursery:
            for first, server in enumerate(servers):
                nursery.start_soon(share, server, first)

    began = time.perf_counter()
    trio.run(main)
    return time.perf_counter() - began


def requests_s(door: Door, calls: int, width: int = 32) -> float:
    """All calls as completions asked of one door, so many at a time."""

    async def main() -> None:
        waiting = iter(range(calls))

        async def some() -> None:
            async with await trio.open_tcp_stream("127.0.0.1", door.port) as stream:
                for number in waiting:
                    await ask(stream, door.request(f"ECHO: {number}"))

        async with trio.open_nursery() as nursery:
            for _ in range(width):
                nursery.start_soon(some)

    began = time.perf_counter()
    trio.run(main)
    return time.perf_counter() - began


def batch_s(door: LocalNode) -> float:
    began = time.perf_counter()
    asked = {"prompt": CELL, "mode": "blocks", "timeout_s": 120.0, "cell_timeout_s": 100.0}
    told = door.ask("submit", asked, silence_s=120.0)
    taken_s = time.perf_counter() - began
    if told.get("state") != "answered":
        raise SystemExit(f"the batch ended otherwise: {told}")
    return taken_s


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.batches", description=__doc__)
    arguments.add_argument("--runs", type=int, default=3)
    options = arguments.parse_args()
    print(machine.describe(), flush=True)
    table, best_s = Table(), ideal_s(DELAYS_S, CALLS)
    with tempfile.TemporaryDirectory() as made, open_devices(Path(made)) as devices:
        door = door_of(devices.door)
        requests_s(door, 60)  # paces are learnt; the first cell starts a kernel
        batch_s(devices.door)
        for _ in range(options.runs):
            for what, measure in (
                (BATCH, lambda: batch_s(devices.door)),
                (HTTP, lambda: requests_s(door, CALLS)),
            ):
                before, had = devices.cpu_s(), devices.calls()
                taken_s = measure()
                cpu_ms = 1000 * (devices.cpu_s() - before) / CALLS
                for delay_s, count, old in zip(DELAYS_S, devices.calls(), had, strict=True):
                    named = f"{what[:-4]}: on that of {1000 * delay_s:.0f} ms"
                    table.keep(named, OURS, [count - old])
                    table.keep(
                        f"{named}, busy (%)", OURS, [100 * (count - old) * delay_s / taken_s]
                    )
                table.keep(what, OURS, [taken_s], cpu_ms=cpu_ms)
                table.keep(f"{what[:-4]}: {TIMES}", OURS, [taken_s / best_s])
            turns_s = in_turn_s(devices.servers, CALLS)
            table.keep(BATCH, TURNS, [turns_s])
            table.keep(f"{BATCH[:-4]}: {TIMES}", TURNS, [turns_s / best_s])
        table.keep(BATCH, IDEAL, [best_s])
    print()
    table.report()


if __name__ == "__main__":
    main()
