"""What the dashboard costs a browser: `python -m benchmarks.dashboard`.

The real page and event stream over real HTTP in headless Chromium, with rows made up for 50 peers
and 50 tasks of which a tenth change every second. Needs chromium and node; `make test` brings the
browser.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import trio

from benchmarks import machine
from benchmarks.figures import head, report
from kowalski.node.http.dashboard import Dashboard
from kowalski.node.http.mesh_routes import MeshRoutes
from kowalski.node.http.routing import Router
from kowalski.node.http.server import open_http_server

DRIVER = Path(__file__).resolve().parent.parent / "tests" / "integration" / "browser"
SCRIPT = """
import { chromium } from "playwright-core";
const [url, peers] = process.argv.slice(2);
const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: flags });
const page = await browser.newPage();
let bytes = 0;
page.on("response", (one) => { bytes += Number(one.headers()["content-length"] ?? 0); });
const began = performance.now();
await page.goto(url);
const all = (n) => document.querySelectorAll("#peers li").length >= n;
await page.waitForFunction(all, Number(peers));
const filled_ms = performance.now() - began;
const paint_ms = await page.evaluate(() =>
  performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? null);
const client = await page.context().newCDPSession(page);
await client.send("Performance.enable");
const cost = async () => (await client.send("Performance.getMetrics")).metrics
  .find((one) => one.name === "TaskDuration").value * 1000;
const before = await cost();
await new Promise((resolve) => setTimeout(resolve, 5000));
const busy_ms = ((await cost()) - before) / 5;
console.log(JSON.stringify({ paint_ms, filled_ms, bytes, busy_ms }));
await browser.close();
"""

Reply = dict[str, object]


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.dashboard", description=__doc__)
    arguments.add_argument("--runs", type=int, default=5)
    arguments.add_argument("--peers", type=int, default=50)
    options = arguments.parse_args()
    print(machine.describe())
    print()
    seen = trio.run(_look, options.runs, options.peers)
    head()
    for what, name in (
        ("first paint (ms)", "paint_ms"),
        (f"all {options.peers} peers on the page (ms)", "filled_ms"),
        ("bytes of the page, its style and its script", "bytes"),
        ("work of the browser for each second of changes (ms)", "busy_ms"),
    ):
        report(what, [float(str(one[name])) for one in seen])


async def _look(runs: int, peers: int) -> list[Reply]:
    rows = _Rows(peers)
    verbs = {"status": rows.status, "peers": rows.peers, "tasks": rows.tasks}
    routes = (*MeshRoutes(verbs, Path("/nonexistent")).routes(), *Dashboard(verbs).routes())
    opened = open_http_server("127.0.0.1", 0, Router(routes))
    with tempfile.NamedTemporaryFile("w", suffix=".mjs", dir=DRIVER) as script:
        script.write(SCRIPT)
        script.flush()
        async with opened as (_, port):
            command = ["node", script.name, f"http://127.0.0.1:{port}/", str(peers)]
            found = []
            for _ in range(runs):
                done = await trio.run_process(command, capture_stdout=True)
                found.append(json.loads(done.stdout))
            return found


class _Rows:
    """What a node of a busy mesh would tell."""

    def __init__(self, peers: int) -> None:
        self._count = peers
        self._asked = 0

    async def status(self, _request: Reply, _emit: object) -> Reply:
        await trio.lowlevel.checkpoint()
        told = {"name": "home", "mesh": "m" * 32, "sandbox": "bubblewrap", "version": "0"}
        return {**told, "connections": self._count - 1, "warnings": []}

    async def peers(self, _request: Reply, _emit: object) -> Reply:
        await trio.lowlevel.checkpoint()
        self._asked += 1
        return {"peers": [self._peer(number) for number in range(self._count)]}

    def _peer(self, number: int) -> Reply:
        changes = self._asked if number % 10 == self._asked % 10 else number
        return {
            "peer": f"12D3KooW{number:040}",
            "name": f"device-{number}",
            "state": "member",
            "is_self": number == 0,
            "rtt_ms": 1.0 + number / 10,
            "load": (changes % 7) / 4,
            "cpu_percent": changes % 100,
            "memory_used_fraction": (changes % 90) / 100,
            "languages": {"python": "3.13", "bash": "5.2", "js": "22"},
            "models": ["llama3.2:3b", "qwen3:8b"],
            "roles": ["submit", "coordinate", "repl", "infer", "fold"],
            "routable": True,
            "why_not": "",
        }

    async def tasks(self, _request: Reply, _emit: object) -> Reply:
        await trio.lowlevel.checkpoint()
        rows = [
            {
                "task": f"01M83QWMJNB2EXMBE293VX{number:04}",
                "state": "answered" if number % 10 != self._asked % 10 else "running",
                "mode": "rlm",
                "term": 1,
                "coordinator_name": f"device-{number}",
                "entries": number,
                "prompt_head": "Which of these logs shows the outage, and what came first?",
            }
            for number in range(50)
        ]
        return {"tasks": rows}


if __name__ == "__main__":
    main()
