"""What the HTTP face costs: `python -m benchmarks.http`.

A scripted model server that answers at once: asked directly, through the node beside it, and
through a node whose peer has it. Real processes, real libp2p, keep-alive connections. Added latency
is the difference of medians; CPU is the nodes' own, from the kernel.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import machine
from benchmarks.asking import (
    HELLO,
    STREAMED,
    Door,
    ModelServer,
    at_a_time,
    model_server,
    taken_s,
    while_killed,
)
from benchmarks.figures import head, report
from kowalski.node.local_cluster import LocalCluster, LocalNode


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.http", description=__doc__)
    arguments.add_argument("--requests", type=int, default=500, help="of each figure, one by one")
    arguments.add_argument("--seconds", type=float, default=5.0, help="at 16 connections")
    arguments.add_argument("--runs", type=int, default=3)
    options = arguments.parse_args()
    print(machine.describe())
    print()
    head()
    with tempfile.TemporaryDirectory() as made, open_mesh(Path(made)) as mesh:
        for run in range(options.runs):
            print(f"--- run {run + 1}")
            _latencies(mesh, options.requests)
            _throughput(mesh, options.seconds)
            _streams(mesh, options.requests // 10)
    with tempfile.TemporaryDirectory() as made, open_thinkers(Path(made)) as thinkers:
        seen = while_killed(thinkers.door, lambda: thinkers.cluster.named("thinker-0").kill())
        report("kill -9 of a peer before the first token: errors seen", [float(seen.errors)])
        report("  time of each request of 0.6 s meanwhile (s)", seen.taken_s)


def door_of(node: LocalNode) -> Door:
    return Door(int(str(node.ask("status")["http_port"])))


@dataclass(frozen=True, slots=True)
class Mesh:
    """`far` has no model; `near` has the server at `direct` beside it."""

    direct: Door
    near: LocalNode
    far: LocalNode
    server: ModelServer

    @property
    def ways(self) -> tuple[tuple[str, Door, tuple[LocalNode, ...]], ...]:
        return (
            ("direct", self.direct, ()),
            ("through the local node", door_of(self.near), (self.near,)),
            ("over one hop", door_of(self.far), (self.far, self.near)),
        )


@contextmanager
def open_mesh(folder: Path) -> Iterator[Mesh]:
    """Two nodes and one model server."""
    with ExitStack() as stack:
        server = stack.enter_context(model_server())
        cluster = LocalCluster(folder)
        stack.callback(cluster.stop)
        backend = ("--backend", server.backend, "--no-repl", "--no-mdns")
        near = cluster.start("near", *backend)
        near.wait_until_up()
        where = ("--roles", "submit,coordinate", "--no-mdns")
        far = cluster.start("far", "--join", near.invite(uses=1), *where)
        cluster.wait_until_met()
        time.sleep(2)  # until what near has is known to far
        yield Mesh(Door(server.port), near, far, server)


@dataclass(frozen=True, slots=True)
class Thinkers:
    """A node that is asked, and two of its peers with a model server each."""

    door: Door
    cluster: LocalCluster
    servers: tuple[ModelServer, ...]


@contextmanager
def open_thinkers(folder: Path) -> Iterator[Thinkers]:
    with ExitStack() as stack:
        servers = tuple(stack.enter_context(model_server()) for _ in range(2))
        cluster = LocalCluster(folder)
        stack.callback(cluster.stop)
        door = cluster.start("door", "--roles", "submit,coordinate", "--no-mdns")
        door.wait_until_up()
        line = door.invite(uses=2)
        for number, server in enumerate(servers):
            backend = ("--backend", server.backend, "--no-repl", "--no-mdns")
            cluster.start(f"thinker-{number}", "--join", line, *backend)
        cluster.wait_until_met()
        time.sleep(2)
        yield Thinkers(door_of(door), cluster, servers)


# --- one by one, and many at a time -------------------------------------------------------------


def _latencies(mesh: Mesh, count: int) -> None:
    base = 0.0
    for name, door, nodes in mesh.ways:
        request = door.request(HELLO)
        taken_s(door, request, count // 5)
        before = _cpu_s(nodes)
        taken = taken_s(door, request, count)
        cpu_ms = 1000 * (_cpu_s(nodes) - before) / count
        middle = statistics.median(taken)
        report(f"chat completion {name} (ms)", [1000 * one for one in taken])
        if nodes:
            report(f"  added to the median, {name} (ms)", [1000 * (middle - base)])
            report(f"  CPU of the nodes for each, {name} (ms)", [cpu_ms])
        else:
            base = middle


def _throughput(mesh: Mesh, seconds: float) -> None:
    for name, door, nodes in mesh.ways:
        before = _cpu_s(nodes)
        count = at_a_time(16, door, door.request(HELLO), seconds)
        report(f"requests a second at 16 connections, {name}", [count / seconds])
        if nodes:
            cpu_ms = 1000 * (_cpu_s(nodes) - before) / max(count, 1)
            report(f"  CPU of the nodes for each, {name} (ms)", [cpu_ms])


def _streams(mesh: Mesh, count: int) -> None:
    for name, door, nodes in mesh.ways:
        before = _cpu_s(nodes)
        taken = taken_s(door, door.request(STREAMED, streams=True), count)
        report(f"stream of 64 tokens {name} (ms)", [1000 * one for one in taken])
        if nodes:
            cpu_ms = 1000 * (_cpu_s(nodes) - before) / count
            report(f"  CPU of the nodes for each, {name} (ms)", [cpu_ms])


def _cpu_s(nodes: tuple[LocalNode, ...]) -> float:
    spent = (psutil.Process(node.process.pid).cpu_times() for node in nodes)
    return sum(one.user + one.system for one in spent)


if __name__ == "__main__":
    main()
