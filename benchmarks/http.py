"""What the HTTP face costs: `python -m benchmarks.http`.

A scripted model server that answers at once: asked directly, through the node beside it, and
through a node whose peer has it. Real processes, real libp2p, keep-alive connections. Added latency
is the difference of medians; CPU is the nodes' own, from the kernel.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import trio

from benchmarks import machine
from kowalski.node.local_cluster import LocalCluster, LocalNode

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello there"}]}).encode()
STREAM = json.dumps(
    {"model": "m", "stream": True, "messages": [{"role": "user", "content": "TOKENS: 64"}]}
).encode()
SLOW = json.dumps(
    {"model": "m", "messages": [{"role": "user", "content": "DELAY: 0.2\nTOKENS: 3"}]}
).encode()


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.http", description=__doc__)
    arguments.add_argument("--requests", type=int, default=500, help="of each figure, one by one")
    arguments.add_argument("--seconds", type=float, default=5.0, help="at 16 connections")
    arguments.add_argument("--runs", type=int, default=3)
    options = arguments.parse_args()
    print(machine.describe())
    print()
    print(f"{'what':58} {'median':>10} {'least':>10} {'most':>10}")
    with tempfile.TemporaryDirectory() as made, _mesh(Path(made)) as mesh:
        for run in range(options.runs):
            print(f"--- run {run + 1}")
            _latencies(mesh, options.requests)
            _throughput(mesh, options.seconds)
            _streams(mesh, options.requests // 10)
    with tempfile.TemporaryDirectory() as made:
        _kills(Path(made))


@dataclass(frozen=True, slots=True)
class Mesh:
    """`far` has no model; `near` has the server at `direct` beside it."""

    direct: int
    near: LocalNode
    far: LocalNode

    def port(self, node: LocalNode) -> int:
        return int(str(node.ask("status")["http_port"]))

    @property
    def ways(self) -> tuple[tuple[str, int, tuple[LocalNode, ...]], ...]:
        return (
            ("direct", self.direct, ()),
            ("through the local node", self.port(self.near), (self.near,)),
            ("over one hop", self.port(self.far), (self.far, self.near)),
        )


@contextmanager
def _model_server(slots: int = 64) -> Iterator[int]:
    command = [sys.executable, "-m", "tests.scripted_model_server", "--model", "m"]
    server = subprocess.Popen([*command, "--slots", str(slots)], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        yield int(json.loads(server.stdout.readline())["url"].rpartition(":")[2])
    finally:
        server.kill()
        server.wait()


@contextmanager
def _mesh(folder: Path) -> Iterator[Mesh]:
    with ExitStack() as stack:
        port = stack.enter_context(_model_server())
        cluster = LocalCluster(folder)
        stack.callback(cluster.stop)
        backend = ("--backend", f"http://127.0.0.1:{port}", "--no-repl", "--no-mdns")
        near = cluster.start("near", *backend)
        near.wait_until_up()
        where = ("--roles", "submit,coordinate", "--no-mdns")
        far = cluster.start("far", "--join", near.invite(uses=1), *where)
        cluster.wait_until_met()
        time.sleep(2)  # until what near has is known to far
        yield Mesh(port, near, far)


# --- one by one ---------------------------------------------------------------------------------


def _latencies(mesh: Mesh, count: int) -> None:
    base = 0.0
    for name, port, nodes in mesh.ways:
        _run(port, BODY, count // 5)
        before = _cpu_s(nodes)
        taken = _run(port, BODY, count)
        cpu_ms = 1000 * (_cpu_s(nodes) - before) / count
        middle = statistics.median(taken)
        _report(f"chat completion {name} (ms)", [1000 * one for one in taken])
        if nodes:
            _report(f"  added to the median, {name} (ms)", [1000 * (middle - base)])
            _report(f"  CPU of the nodes for each, {name} (ms)", [cpu_ms])
        else:
            base = middle


def _run(port: int, body: bytes, count: int) -> list[float]:
    async def ask() -> list[float]:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            taken = []
            for _ in range(count):
                began = time.perf_counter()
                await _one(stream, body)
                taken.append(time.perf_counter() - began)
            return taken

    return trio.run(ask)


async def _one(stream: trio.SocketStream, body: bytes) -> bytes:
    """One request on an open connection; its body, the chunks of which are left as they are."""
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    await stream.send_all(head + body)
    data = b""
    while b"\r\n\r\n" not in data:
        data += await _more(stream)
    told, _, rest = data.partition(b"\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 200"), data
    lower = told.lower()
    if b"content-length: " in lower:
        length = int(lower.split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(rest) < length:
            rest += await _more(stream)
    else:
        while not rest.endswith(b"0\r\n\r\n"):
            rest += await _more(stream)
    return rest


async def _more(stream: trio.SocketStream) -> bytes:
    data = await stream.receive_some(65536)
    assert data, "the connection was closed"
    return bytes(data)


# --- many at a time -----------------------------------------------------------------------------


def _throughput(mesh: Mesh, seconds: float) -> None:
    for name, port, nodes in mesh.ways:
        before = _cpu_s(nodes)
        count = _at_a_time(16, port, lambda stream: _one(stream, BODY), seconds)
        _report(f"requests a second at 16 connections, {name}", [count / seconds])
        if nodes:
            cpu_ms = 1000 * (_cpu_s(nodes) - before) / max(count, 1)
            _report(f"  CPU of the nodes for each, {name} (ms)", [cpu_ms])


def _streams(mesh: Mesh, count: int) -> None:
    for name, port, nodes in mesh.ways:
        before = _cpu_s(nodes)
        taken = _run(port, STREAM, count)
        _report(f"stream of 64 tokens {name} (ms)", [1000 * one for one in taken])
        if nodes:
            cpu_ms = 1000 * (_cpu_s(nodes) - before) / count
            _report(f"  CPU of the nodes for each, {name} (ms)", [cpu_ms])


def _at_a_time(
    connections: int,
    port: int,
    ask: Callable[[trio.SocketStream], Awaitable[object]],
    seconds: float,
) -> int:
    async def main() -> int:
        count = 0

        async def one() -> None:
            nonlocal count
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                while True:
                    await ask(stream)
                    count += 1

        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for _ in range(connections):
                    nursery.start_soon(one)
        return count

    return trio.run(main)


# --- a peer that is killed ----------------------------------------------------------------------


def _kills(folder: Path) -> None:
    """Four clients ask all the time; one of two peers with the model is killed: who notices?"""
    with ExitStack() as stack:
        ports = [stack.enter_context(_model_server()) for _ in range(2)]
        cluster = LocalCluster(folder)
        stack.callback(cluster.stop)
        door = cluster.start("door", "--roles", "submit,coordinate", "--no-mdns")
        door.wait_until_up()
        line = door.invite(uses=2)
        for number, port in enumerate(ports):
            backend = ("--backend", f"http://127.0.0.1:{port}", "--no-repl", "--no-mdns")
            cluster.start(f"thinker-{number}", "--join", line, *backend)
        cluster.wait_until_met()
        time.sleep(2)
        errors, taken = trio.run(_while_killed, int(str(door.ask("status")["http_port"])), cluster)
        _report("kill -9 of a peer before the first token: errors seen", [float(errors)])
        _report("  time of each request of 0.6 s meanwhile (s)", taken)


async def _while_killed(port: int, cluster: LocalCluster) -> tuple[int, list[float]]:
    errors = 0
    taken: list[float] = []

    async def client() -> None:
        nonlocal errors
        while True:
            began = time.perf_counter()
            try:
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    await _one(stream, SLOW)
            except (AssertionError, OSError, trio.BrokenResourceError):
                errors += 1
            taken.append(time.perf_counter() - began)

    with trio.move_on_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(client)
            await trio.sleep(3)
            await trio.to_thread.run_sync(cluster.named("thinker-0").kill)
            await trio.sleep_forever()
    return errors, taken


# --- telling ------------------------------------------------------------------------------------


def _cpu_s(nodes: tuple[LocalNode, ...]) -> float:
    spent = (psutil.Process(node.process.pid).cpu_times() for node in nodes)
    return sum(one.user + one.system for one in spent)


def _report(what: str, values: list[float]) -> None:
    middle = statistics.median(values)
    print(f"{what:58} {middle:10.3f} {min(values):10.3f} {max(values):10.3f}", flush=True)


if __name__ == "__main__":
    main()
