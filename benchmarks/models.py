"""How soon model servers are found, and a failed one replaced: `python -m benchmarks.models`.

Scripted model servers, each a process of its own, on loopback. Detection is the node's own look at
all usual addresses, in this process. The rest are real nodes over libp2p: `near` asks and has no
model, `warm` has it in memory, `cold` on disk. What is measured is what an asker sees; a client of
one server alone would see the failure.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import trio

from benchmarks import machine
from benchmarks.figures import head, report
from kowalski.node.backends.catalogue import open_catalogue
from kowalski.node.backends.http import open_http
from kowalski.node.backends.http_pool import Origin, connect_tcp
from kowalski.node.backends.probing import USUAL_URLS, Candidate, Finding, candidates, probe
from kowalski.node.control_client import NodeGoneError
from kowalski.node.local_cluster import Event, LocalCluster, LocalNode
from kowalski.protocol.errors import KowalskiError
from kowalski.rlm.tokens import estimate_tokens

MODEL = "m"
CHOICES = 100
MODELS = tuple(f"{MODEL}{number}" for number in range(CHOICES))
TOKENS = 30
FAULT_AFTER = 10
TOKEN_S = 0.02
ANSWER = " ".join(f"w{number}" for number in range(TOKENS))
FAULTS_IN_THE_MIDDLE = ("error", "eof", "hang_up", "garbage")
FAULTS_AT_ONCE = ("empty", "busy", "broken", "missing")
LINE_S = 30.0
LOOKS = 20


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.models", description=__doc__)
    arguments.add_argument("--runs", type=int, default=3, help="of each detection and failure")
    options = arguments.parse_args()
    print(machine.describe())
    print()
    head()
    _detection(options.runs)
    _choices()
    for fault in (*FAULTS_IN_THE_MIDDLE, *FAULTS_AT_ONCE):
        _fault(fault, options.runs)
    for what in ("server", "node"):
        _kill(what, options.runs)


# --- scripted servers ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    process: subprocess.Popen[bytes]


@contextmanager
def _server(folder: Path, act: dict[str, object], *options: str) -> Iterator[Server]:
    script = folder / f"script-{len(list(folder.glob('script-*')))}.json"
    script.write_text(json.dumps({"otherwise": {"text": ANSWER, **act}}))
    command = [sys.executable, "-m", "tests.scripted_model_server", "--script", str(script)]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield Server(json.loads(process.stdout.readline())["url"], process)
    finally:
        process.kill()
        process.wait()


def _models(first: str) -> tuple[str, ...]:
    return tuple(word for name in (first, MODEL, *MODELS) for word in ("--model", name))


# An OpenAI-compatible server has loaded what it lists. Ollama says which: the first, here.
WARM = ("--flavour", "openai", *_models("another"))
COLD = ("--flavour", "ollama", *_models("other"))


# --- detection ----------------------------------------------------------------------------------


def _detection(runs: int) -> None:
    cost = [trio.run(_look_again) for _ in range(runs)]
    report("one more look at all usual addresses: connections", [each[0] for each in cost])
    report("one more look at all usual addresses: CPU (ms)", [each[1] for each in cost])
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        folder = Path(made)
        urls = [
            stack.enter_context(_server(folder, {}, *kind)).url
            for kind in (WARM, COLD, ("--model", MODEL), ("--model", MODEL))
        ]
        nobody = "all usual addresses, nobody there: until the node goes on"
        report(nobody, [trio.run(_detect, [], "nothing") for _ in range(runs)])
        found = "two Ollamas and two OpenAI-compatible besides: until all are found"
        report(found, [trio.run(_detect, urls, "nothing") for _ in range(runs)])
        silent = "the same with one that never answers: until the node goes on"
        report(silent, [trio.run(_detect, urls, "silent") for _ in range(runs)])


async def _look_again() -> tuple[float, float]:
    """Connections and CPU milliseconds of a look as an idle node has it every half minute."""
    opened = 0

    async def connect(origin: Origin) -> trio.abc.Stream:
        nonlocal opened
        opened += 1
        return await connect_tcp(origin)

    async with open_http(connect=connect) as http:
        places = candidates()
        await probe(places, http=http, estimate_tokens=estimate_tokens)
        opened, began = 0, time.process_time()
        for _ in range(LOOKS):
            await probe(places, http=http, estimate_tokens=estimate_tokens)
        return opened / LOOKS, 1000 * (time.process_time() - began) / LOOKS


async def _detect(urls: Sequence[str], besides: Literal["silent", "nothing"]) -> float:
    """Seconds until the models of all `urls` are listed and the node would go on starting."""
    async with open_http() as http, trio.open_nursery() as nursery:
        usual = list(USUAL_URLS)
        if besides == "silent":
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            usual.append(f"http://127.0.0.1:{listener.socket.getsockname()[1]}")
            nursery.start_soon(trio.serve_listeners, _say_nothing, [listener])

        async def look(places: Sequence[Candidate]) -> tuple[Finding, ...]:
            return await probe(places, http=http, estimate_tokens=estimate_tokens)

        began = time.perf_counter()
        places = candidates(urls, usual_urls=usual)
        async with open_catalogue(places, look) as catalogue:
            while {one.backend_url for one in catalogue.listings()} < set(urls):
                await catalogue.wait_changed()
            taken = time.perf_counter() - began
        nursery.cancel_scope.cancel()
    return taken


async def _say_nothing(_stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


# --- the mesh -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Mesh:
    near: LocalNode
    warm: LocalNode
    cold: LocalNode
    warm_server: Server


@contextmanager
def _mesh(warm_act: dict[str, object]) -> Iterator[Mesh]:
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        folder = Path(made)
        warm = stack.enter_context(_server(folder, warm_act, *WARM))
        cold = stack.enter_context(_server(folder, {}, *COLD))
        cluster = LocalCluster(folder)
        stack.callback(cluster.stop)
        near = cluster.start("near", "--roles", "submit,coordinate", "--no-mdns")
        near.wait_until_up()
        line = near.invite(uses=2)
        for name, server in (("warm", warm), ("cold", cold)):
            where = ("--no-mdns", "--roles", "submit,infer", "--backend", server.url)
            cluster.start(name, "--join", line, *where)
        cluster.wait_until_met()
        mesh = Mesh(near, cluster.named("warm"), cluster.named("cold"), warm)
        _wait_until_known(mesh)
        yield mesh


def _wait_until_known(mesh: Mesh) -> None:
    give_up_at = time.monotonic() + LINE_S
    while time.monotonic() < give_up_at:
        rows = mesh.near.ask("peers")["peers"]
        assert isinstance(rows, list)
        if {row["name"] for row in rows if MODEL in row["models"]} == {"warm", "cold"}:
            return
        time.sleep(0.1)
    raise SystemExit(f"the models are not known within {LINE_S:.0f} s: {rows}")


def _choices() -> None:
    """Each model is asked for once: where it was cold, it is warm after that."""
    with _mesh({}) as mesh:
        for at_a_time, models in ((1, MODELS[: CHOICES // 2]), (4, MODELS[CHOICES // 2 :])):
            with ThreadPoolExecutor(at_a_time) as pool:
                names = list(pool.map(lambda model: _ask(mesh.near, model).done["name"], models))
            what = f"{len(names)} models, {at_a_time} at a time: calls on the warm peer (%)"
            report(what, [100 * names.count("warm") / len(names)])


# --- failures -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Asked:
    """`gaps_s` are the waits before each piece of the answer, the first since the question."""

    gaps_s: list[float] = field(default_factory=list)
    done: Event = field(default_factory=dict)
    text: str = ""


def _ask(
    node: LocalNode, model: str = MODEL, on_piece: Callable[[int], None] = lambda _: None
) -> Asked:
    asked = Asked()
    last = time.perf_counter()

    def hear(event: Event) -> None:
        nonlocal last
        if event.get("kind") == "delta":
            now = time.perf_counter()
            asked.gaps_s.append(now - last)
            last = now
            asked.text += str(event["text"])
            on_piece(len(asked.gaps_s))

    request = {"prompt": "say it", "model": model, "timeout_s": LINE_S}
    asked.done = node.ask("ask", request, on_event=hear)
    assert asked.text == ANSWER, asked.text
    return asked


def _fault(fault: str, runs: int) -> None:
    """The warm server suffers it in each answer: the longest wait is the one for the next peer."""
    after = FAULT_AFTER if fault in FAULTS_IN_THE_MIDDLE else 0
    act = {"fault": fault, "after": after, "delay_per_token_s": TOKEN_S}
    waits = []
    with _mesh(act) as mesh:
        for model in MODELS[:runs]:  # Another each time: who has it warm is asked first.
            asked = _ask(mesh.near, model)
            assert asked.done["name"] == "cold", asked
            waits.append(max(asked.gaps_s))
            # The breaker of a peer opens for two seconds when it failed three times.
            time.sleep(2.5)
    where = f"after {after} tokens" if after else "at once"
    report(f"server fails ({fault}, {where}): longest wait for a piece (s)", waits)


def _kill(what: str, runs: int) -> None:
    waits, errors = [], 0
    for _ in range(runs):
        with _mesh({"delay_per_token_s": TOKEN_S}) as mesh:

            def kill(pieces: int, mesh: Mesh = mesh) -> None:
                if pieces == FAULT_AFTER and what == "server":
                    mesh.warm_server.process.kill()
                elif pieces == FAULT_AFTER:
                    mesh.warm.kill()

            try:
                waits.append(max(_ask(mesh.near, on_piece=kill).gaps_s))
            except (KowalskiError, NodeGoneError):
                errors += 1
    report(f"{what} killed (-9) after {FAULT_AFTER} tokens: longest wait for a piece (s)", waits)
    if errors:
        print(f"  {errors} of {runs} failed")


if __name__ == "__main__":
    main()
