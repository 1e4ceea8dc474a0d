"""The same code strings run by what a user would pick instead; `benchmarks.cells` starts this.

`PYTHON -m benchmarks.cell_peers` with an interpreter that has them: a process for each program,
ipykernel, Dask, Ray, Celery on redis and NATS on this machine. None of them has a sandbox. Prints
one JSON object a line. Only the standard library and the peers are imported: their environment
knows nothing of ours.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ASSIGN = "x = 1"
PROGRAM = "print(sum(range(1000)))"
LONGER = "print(sum(range(2_000_000)))"
AT_ONCE = 16
WORKERS = 8

START_S = 30.0
CELERY_URL = "KOWALSKI_BENCHMARK_CELERY"
"""Tells worker and asker where the queue is."""

DISTRIBUTIONS = {"nats": "nats-py"}

Act = Callable[[], object]


def tree_cpu_s(pid: int) -> float:
    """Processor time of a process and of all below it, the dead among them included."""
    ticks, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
            for task in os.listdir(f"/proc/{one}/task"):  # noqa: PTH208
                children = Path(f"/proc/{one}/task/{task}/children").read_text().split()
                waiting.extend(int(child) for child in children)
        except OSError:
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def measured(act: Act, times: int) -> tuple[list[float], float]:
    """Milliseconds of each time, and of processor time for one."""
    walls, before = [], tree_cpu_s(os.getpid())
    for _ in range(times):
        began = time.perf_counter()
        act()
        walls.append((time.perf_counter() - began) * 1000)
    return walls, (tree_cpu_s(os.getpid()) - before) * 1000 / times


def say(peer: str, what: str, walls: list[float], cpu_ms: float) -> None:
    line = {"peer": peer, "what": what, "walls_ms": walls, "cpu_ms": cpu_ms}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def report(peer: str, what: str, act: Act, times: int) -> None:
    act()
    say(peer, what, *measured(act, times))


def report_all(peer: str, run: Callable[[str], object], times: int) -> None:
    """`run` runs one string anywhere, and may be called from several threads."""
    report(peer, "program", lambda: run(PROGRAM), times)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        report(peer, "at once", lambda: list(threads.map(run, [LONGER] * AT_ONCE)), 3)
    count = WORKERS * 10
    with ThreadPoolExecutor(WORKERS) as threads:
        began, before = time.perf_counter(), tree_cpu_s(os.getpid())
        list(threads.map(run, [PROGRAM] * count))
        wall_ms = (time.perf_counter() - began) * 1000 / count
        say(peer, "throughput", [wall_ms], (tree_cpu_s(os.getpid()) - before) * 1000 / count)


def processes(times: int) -> None:
    """A new interpreter for each program, isolated from the user's settings as ours is."""

    def run(code: str) -> bytes:
        return subprocess.check_output([sys.executable, "-I", "-c", code])

    report("subprocess", "first", lambda: run(ASSIGN), times)
    report_all("subprocess", run, times)


def kernels(times: int) -> None:
    manager = importlib.import_module("jupyter_client.manager")

    def start() -> tuple[Any, Any]:
        return manager.start_new_kernel(kernel_name="python3", startup_timeout=120)

    def close(kernel: tuple[Any, Any]) -> None:
        kernel[1].stop_channels()
        kernel[0].shutdown_kernel(now=True)

    def run(kernel: tuple[Any, Any], code: str) -> None:
        reply = kernel[1].execute_interactive(code, output_hook=lambda _message: None, timeout=60)
        assert reply["content"]["status"] == "ok"

    started: list[tuple[Any, Any]] = []

    def first() -> None:
        started.append(start())
        run(started[-1], ASSIGN)

    report("ipykernel", "first cold", first, 3)
    report("ipykernel", "round trip", lambda: run(started[0], ASSIGN), times)
    report("ipykernel", "program", lambda: run(started[0], PROGRAM), times)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        started += threads.map(lambda _: start(), range(AT_ONCE - len(started)))
        pairs = [(kernel, LONGER) for kernel in started]
        report("ipykernel", "at once", lambda: list(threads.map(lambda p: run(*p), pairs)), 3)
    for kernel in started:
        close(kernel)


def executed(code: str) -> str:
    """Run by Dask's and Ray's workers: a namespace of its own, and what was printed."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {"__name__": "__main__"})
    return out.getvalue()


@contextlib.contextmanager
def _dask() -> Iterator[Callable[[str], object]]:
    distributed = importlib.import_module("distributed")
    cluster = distributed.LocalCluster(
        n_workers=os.cpu_count(), threads_per_worker=1, dashboard_address=None
    )
    with cluster, distributed.Client(cluster) as client:
        yield lambda code: client.submit(executed, code, pure=False).result()


@contextlib.contextmanager
def _ray() -> Iterator[Callable[[str], object]]:
    ray = importlib.import_module("ray")
    ray.init(num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False)
    remote = ray.remote(executed)
    try:
        yield lambda code: ray.get(remote.remote(code))
    finally:
        ray.shutdown()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def _process(*command: str, **environment: str) -> Iterator[None]:
    """A server or a worker beside this, for the length of the block."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        end_group(process)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started in a session of its own, and all that it started there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _listens(port: int) -> None:
    give_up_at = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > give_up_at:
                sys.exit(f"nothing listens within {START_S:.0f} s")
            time.sleep(0.02)
        else:
            return


@contextlib.contextmanager
def _celery() -> Iterator[Callable[[str], object]]:
    port = _free_port()
    url = f"redis://127.0.0.1:{port}/0"
    server = (os.environ["KOWALSKI_BENCHMARK_REDIS_SERVER"], "--port", str(port))
    quiet = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
    worker = (sys.executable, "-m", "celery", "-A", "benchmarks.cell_celery", "worker")
    options = ("--concurrency", str(os.cpu_count()), "--loglevel", "CRITICAL")
    os.environ[CELERY_URL] = url
    with _process(*server, *quiet):
        _listens(port)
        with _process(*worker, *options):
            task = importlib.import_module("benchmarks.cell_celery").run
            yield lambda code: task.delay(code).get(timeout=60)


@contextlib.contextmanager
def _nats() -> Iterator[Callable[[str], object]]:
    nats = importlib.import_module("nats")
    port = _free_port()
    url = f"nats://127.0.0.1:{port}"
    server = (os.environ["KOWALSKI_BENCHMARK_NATS_SERVER"], "--addr", "127.0.0.1")
    worker = (sys.executable, "-m", "benchmarks.cell_nats", url)
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    def wait(answer: Any) -> Any:  # noqa: ANN401 whatever it returns
        return asyncio.run_coroutine_threadsafe(answer, loop).result(60)

    with contextlib.ExitStack() as stack:
        stack.enter_context(_process(*server, "--port", str(port)))
        _listens(port)
        for _ in range(os.cpu_count() or 1):
            stack.enter_context(_process(*worker))
        client = wait(nats.connect(url))

        def run(code: str) -> object:
            return wait(client.request("programs", code.encode(), timeout=60)).data

        give_up_at = time.monotonic() + START_S
        while True:
            try:
                run(ASSIGN)
            except Exception:
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(0.05)
            else:
                break
        yield run
        wait(client.close())


def pool(name: str, times: int) -> None:
    opened = {"dask": _dask, "ray": _ray, "celery": _celery, "nats": _nats}[name]
    began, before = time.perf_counter(), tree_cpu_s(os.getpid())
    with opened() as run:
        run(ASSIGN)
        wall_ms = (time.perf_counter() - began) * 1000
        say(name, "first cold", [wall_ms], (tree_cpu_s(os.getpid()) - before) * 1000)
        report(name, "round trip", lambda: run(ASSIGN), times)
        report_all(name, run, times)


PEERS: dict[str, tuple[str, Callable[[int], None]]] = {
    "subprocess": ("sys", processes),
    "ipykernel": ("ipykernel", kernels),
    "dask": ("distributed", lambda times: pool("dask", times)),
    "ray": ("ray", lambda times: pool("ray", times)),
    "celery": ("celery", lambda times: pool("celery", times)),
    "nats": ("nats", lambda times: pool("nats", times)),
}


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.cell_peers", description=__doc__)
    arguments.add_argument("peer", choices=sorted(PEERS))
    arguments.add_argument("--times", type=int, default=50)
    options = arguments.parse_args()
    module, run = PEERS[options.peer]
    if importlib.util.find_spec(module) is None:
        sys.exit(f"{sys.executable} has no {module}")
    distribution = DISTRIBUTIONS.get(module, module)
    version = "" if module == "sys" else importlib.metadata.version(distribution)
    sys.stdout.write(json.dumps({"peer": options.peer, "version": version}) + "\n")
    run(options.times)


if __name__ == "__main__":
    main()
