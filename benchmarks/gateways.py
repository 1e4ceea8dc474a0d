"""Chat completions through gateways to model servers: `python -m benchmarks.gateways`.

The same scripted model server, which answers at once, asked directly, through our node beside it,
over one hop of the mesh, and through each gateway that is named with `--peer NAME=PROGRAM`. One
process each, with its defaults; keep-alive connections; processor time is that of all processes of
the gateway; with nothing between that of the model server, which no other figure has in it. Then
two servers behind each, one of which is killed while four clients ask.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import trio

from benchmarks import machine
from benchmarks.asking import (
    HELLO,
    STREAMED,
    AnswerError,
    Door,
    Meanwhile,
    ModelServer,
    at_a_time,
    model_server,
    taken_s,
    until_answered,
    while_killed,
)
from benchmarks.cell_peers import end_group, tree_cpu_s
from benchmarks.figures import OURS, Table, report_failure
from benchmarks.http import open_mesh, open_thinkers

ONE = "chat completion, one after the other (ms)"
MANY = "chat completions at 16 connections (a second)"
STREAM = "64 tokens streamed (ms)"
MEMORY = "resident memory (MB)"
START = "start to first answer (s)"
ERRORS = "one of two servers killed: errors that 4 clients see in 10 s"
LONGEST = "one of two servers killed: longest request of 0.6 s (s)"

START_S_MAX = 120.0
DIRECT = "nothing between"
HOP = f"{OURS}, one hop"


class GatewayError(Exception):
    """A gateway that does not answer, and the end of what it said."""


@dataclass(frozen=True, slots=True)
class Running:
    door: Door
    pids: tuple[int, ...]

    def cpu_s(self) -> float:
        return sum(tree_cpu_s(pid) for pid in self.pids)

    def resident_mb(self) -> float:
        processes = [psutil.Process(pid) for pid in self.pids]
        processes += [child for one in processes for child in one.children(recursive=True)]
        return sum(one.memory_info().rss for one in processes) / 1e6


@dataclass(frozen=True, slots=True)
class Plan:
    """How a gateway is started: its commands, in order, and how it is asked then."""

    commands: tuple[tuple[str, ...], ...]
    door: Door
    environment: dict[str, str]


Make = Callable[[Path, Path, Sequence[ModelServer]], Plan]


@dataclass(frozen=True, slots=True)
class Gateway:
    """`make` of its program, a folder of its own and the servers that it is to ask.

    `known`: what is known to fail in it, for the reader of its failures.
    """

    make: Make
    flavour: str = "openai"
    model: str = "m"
    known: str = ""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _litellm(program: Path, folder: Path, servers: Sequence[ModelServer]) -> Plan:
    port, key = free_port(), f"sk-{secrets.token_hex(24)}"
    models = [
        {
            "model_name": "m",
            "litellm_params": {
                "model": "openai/m",
                "api_base": f"{server.url}/v1",
                "api_key": "none",
            },
        }
        for server in servers
    ]
    config = folder / "config.yaml"  # of which JSON is a part
    told = {"model_list": models, "router_settings": {"num_retries": 2}}
    config.write_text(json.dumps({**told, "general_settings": {"master_key": key}}))
    command = (
        str(program.parent / "litellm"), "--config", str(config), "--host", "127.0.0.1",
        "--port", str(port), "--num_workers", "1", "--telemetry", "False",
    )  # fmt: skip
    door = Door(port, headers=(("Authorization", f"Bearer {key}"),))
    return Plan((command,), door, {"LITELLM_LOCAL_MODEL_COST_MAP": "True"})


def _herd(program: Path, folder: Path, servers: Sequence[ModelServer]) -> Plan:
    del folder
    port, programs = free_port(), program.parent
    router = (str(programs / "herd"), "--host", "127.0.0.1", "--port", str(port))
    agents = [
        (
            str(programs / "herd-node"), "--ollama-host", server.url,
            "--router-url", f"http://127.0.0.1:{port}", "--node-id", f"node-{number}",
        )
        for number, server in enumerate(servers)
    ]  # fmt: skip
    return Plan((router, *agents), Door(port, model="m:latest"), {"FLEET_NODE_TELEMETRY": "false"})


def _sglang(program: Path, folder: Path, servers: Sequence[ModelServer]) -> Plan:
    del folder
    port = free_port()
    command = (
        str(program), "-m", "sglang_router.launch_router", "--host", "127.0.0.1",
        "--port", str(port), "--prometheus-port", str(free_port()), "--log-level", "warn",
        "--worker-urls", *(server.url for server in servers),
    )  # fmt: skip
    return Plan((command,), Door(port), {})


def _portkey(program: Path, folder: Path, servers: Sequence[ModelServer]) -> Plan:
    del folder
    port = free_port()
    targets = [
        {"provider": "openai", "custom_host": f"{server.url}/v1", "api_key": "none"}
        for server in servers
    ]
    config = {"strategy": {"mode": "fallback"}, "targets": targets}
    door = Door(port, headers=(("x-portkey-config", json.dumps(config)),))
    command = ("node", str(program), f"--port={port}", "--headless")
    return Plan((command,), door, {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"})


GATEWAYS: dict[str, Gateway] = {
    "litellm": Gateway(_litellm),
    "ollama-herd": Gateway(_herd, flavour="ollama", model="m:latest"),
    "sglang-router": Gateway(_sglang),
    "portkey": Gateway(
        _portkey,
        known="every stream of it on Node 20, Portkey-AI/gateway issue 1389: TypeError, immutable",
    ),
}


@contextmanager
def opened(plan: Plan, folder: Path) -> Iterator[Running]:
    """The gateway once it answers.

    Raises:
        GatewayError: it does not.
    """
    environment = {**os.environ, "HOME": str(folder), **plan.environment}
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with (folder / "log").open("wb") as log:
            for command in plan.commands:
                process = subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
                processes.append(process)  # at once: the next command may not be found

        def is_alive() -> bool:
            return all(process.poll() is None for process in processes)

        request = plan.door.request(HELLO)
        why = trio.run(until_answered, plan.door, request, START_S_MAX, is_alive)
        if why:
            said = (folder / "log").read_text(errors="replace").split("\n")
            last = next((line.strip() for line in reversed(said) if line.strip()), "")
            raise GatewayError(f"{why}; it said: {last[-200:]}")
        yield Running(plan.door, tuple(process.pid for process in processes))
    finally:
        for process in processes:
            end_group(process)


# --- measuring ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counts:
    requests: int
    seconds: float


def measure(
    table: Table, peer: str, door: Door, counts: Counts, cpu_s: Callable[[], float]
) -> None:
    """One run of everything that is asked of one server."""
    request, stream = door.request(HELLO), door.request(STREAMED, streams=True)
    taken_s(door, request, max(10, counts.requests // 5))
    before = cpu_s()
    taken = taken_s(door, request, counts.requests)
    cpu_ms = 1000 * (cpu_s() - before) / counts.requests
    table.keep(ONE, peer, [1000 * one for one in taken], cpu_ms=cpu_ms)
    before = cpu_s()
    count = at_a_time(16, door, request, counts.seconds)
    cpu_ms = 1000 * (cpu_s() - before) / max(count, 1)
    table.keep(MANY, peer, [count / counts.seconds], cpu_ms=cpu_ms)
    streams = max(10, counts.requests // 10)
    before = cpu_s()
    try:
        taken = taken_s(door, stream, streams)
    except* AnswerError as failed:
        first = str(failed.exceptions[0]).splitlines()
        known = f"; known: {GATEWAYS[peer].known}" if peer in GATEWAYS else ""
        report_failure(peer, f"{STREAM}: {first[0]}, {first[-1]}{known}")
    else:
        cpu_ms = 1000 * (cpu_s() - before) / streams
        table.keep(STREAM, peer, [1000 * one for one in taken], cpu_ms=cpu_ms)


def measure_ours(table: Table, counts: Counts) -> None:
    with tempfile.TemporaryDirectory() as made, open_mesh(Path(made)) as mesh:
        for peer, (_, door, nodes) in zip((DIRECT, OURS, HOP), mesh.ways, strict=True):
            pids = tuple(node.process.pid for node in nodes) or (mesh.server.process.pid,)
            running = Running(door, pids)
            measure(table, peer, door, counts, running.cpu_s)
            if nodes:
                table.keep(MEMORY, peer, [running.resident_mb() / len(nodes)])
    with tempfile.TemporaryDirectory() as made, open_thinkers(Path(made)) as thinkers:
        keep_loss(table, HOP, while_killed(thinkers.door, thinkers.servers[0].process.kill))


def keep_loss(table: Table, peer: str, seen: Meanwhile) -> None:
    table.keep(ERRORS, peer, [float(seen.errors)])
    table.keep(LONGEST, peer, [max(seen.taken_s, default=0.0)])


def measure_peer(table: Table, name: str, program: Path, counts: Counts) -> None:
    """Raises GatewayError, AnswerError."""
    gateway = GATEWAYS[name]

    @contextmanager
    def behind(number: int) -> Iterator[tuple[Running, list[ModelServer]]]:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            one = ("--flavour", gateway.flavour)
            servers = [
                stack.enter_context(model_server(*one, model=gateway.model)) for _ in range(number)
            ]
            plan = gateway.make(program, folder, servers)
            yield stack.enter_context(opened(plan, folder)), servers

    began = time.perf_counter()
    with behind(1) as (running, _):
        table.keep(START, name, [time.perf_counter() - began])
        measure(table, name, running.door, counts, running.cpu_s)
        table.keep(MEMORY, name, [running.resident_mb()])
    with behind(2) as (running, servers):
        keep_loss(table, name, while_killed(running.door, servers[0].process.kill))


def named(text: str) -> tuple[str, Path]:
    """The type of `--peer`: NAME=PROGRAM."""
    name, equals, program = text.partition("=")
    if not equals or name not in GATEWAYS:
        raise argparse.ArgumentTypeError(f"{text}: NAME=PROGRAM, one of {', '.join(GATEWAYS)}")
    return name, Path(program)


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.gateways", description=__doc__)
    arguments.add_argument("--runs", type=int, default=3)
    arguments.add_argument("--requests", type=int, default=300, help="one after the other (300)")
    arguments.add_argument("--seconds", type=float, default=4.0, help="at 16 connections (4)")
    arguments.add_argument(
        "--peer", type=named, action="append", default=[], metavar="NAME=PROGRAM"
    )
    options = arguments.parse_args()
    print(machine.describe(), flush=True)
    counts, table = Counts(options.requests, options.seconds), Table()
    peers = dict(options.peer)
    for _ in range(options.runs):
        measure_ours(table, counts)
        for name in list(peers):
            try:
                measure_peer(table, name, peers[name], counts)
            except* (GatewayError, AnswerError, OSError, trio.TooSlowError) as failed:
                report_failure(name, str(failed.exceptions[0])[:300])
                del peers[name]
    print()
    table.report()


if __name__ == "__main__":
    main()
