"""Opens a session with a stubborn daemon in it, says so, and waits to be killed: see its test."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import trio

from kowalski.node.repl.detection import detect_sandbox, tiers
from kowalski.node.repl.seam import SubCall, SubCallResult
from kowalski.node.repl.sessions import open_sessions_host

DAEMON = """
import os, signal, sys, time
if os.fork() == 0:
    try: os.setsid()
    except OSError: pass
    for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)
    if os.fork() == 0:
        os.execv('/bin/sleep', ['sleep', 'SECONDS'])
    os._exit(0)
time.sleep(0.1)
"""


async def nobody(calls: tuple[SubCall, ...]) -> tuple[SubCallResult, ...]:
    await trio.lowlevel.checkpoint()
    return tuple(SubCallResult(error="nobody") for _ in calls)


async def main(tier: str, seconds: str, scratch: Path) -> None:
    found = next((name, find) for name, find in tiers() if name == tier)
    verdict = await detect_sandbox(candidates=[found])
    if verdict.sandbox is None:
        sys.stdout.write(f"missing: {verdict.reason}\n")
        return
    async with open_sessions_host(verdict.sandbox, {"python": ""}, scratch_path=scratch) as host:
        session = await host.open("python", {}, 0)
        run = partial(session.run_cell, on_output=lambda *_: None, on_sub_calls=nobody)
        outcome = await run(DAEMON.replace("SECONDS", seconds), timeout_s=60)
        sys.stdout.write(f"{outcome.status}\n")
        sys.stdout.flush()
        await run("while True: pass", timeout_s=600)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], Path(sys.argv[3]))
