"""Scenarios run one after the other, each a process of its own: what it said, and its figures."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks import environments, figures, machine
from benchmarks.environments import Absent, Installed
from benchmarks.results import Outcome, Results
from benchmarks.scenarios import LIMIT_S, Scenario

ROOT = Path(__file__).resolve().parents[1]
OUTPUT_CHARS_MAX = 200_000
STOP_S = 20.0


def install(names: Iterable[str], cache: Path) -> dict[str, Installed | Absent]:
    """Every peer of these that can be had, and why the others cannot."""
    found: dict[str, Installed | Absent] = {}
    for name in dict.fromkeys(names):
        print(f"{name}: installing, where it is not there yet", flush=True)
        found[name] = one = environments.install(environments.BY_NAME[name], cache)
        told = one.version if isinstance(one, Installed) else f"not measured: {one.reason}"
        print(f"{name}: {told}", flush=True)
    return found


def run(
    wanted: Sequence[Scenario],
    found: Mapping[str, Installed | Absent],
    *,
    is_quick: bool,
    limit_s: float = LIMIT_S,
) -> Results:
    """All of them, one after the other, beside the peers that were found."""
    at_first = machine.this_one()
    print(machine.describe(), flush=True)
    installed = {name: one for name, one in found.items() if isinstance(one, Installed)}
    outcomes = [_run_one(one, installed, is_quick=is_quick, limit_s=limit_s) for one in wanted]
    return Results(
        at_first,
        os.getloadavg()[0],
        {name: one.version for name, one in installed.items()},
        {name: one.reason for name, one in found.items() if isinstance(one, Absent)},
        tuple(outcomes),
    )


def _run_one(
    scenario: Scenario, installed: Mapping[str, Installed], *, is_quick: bool, limit_s: float
) -> Outcome:
    programs = {name: one.program for name, one in installed.items()}
    arguments = scenario.arguments(programs, is_quick=is_quick)
    shown = scenario.arguments({name: Path("...") for name in programs}, is_quick=is_quick)
    command = ["python", "-m", scenario.module, *shown]
    print(f"\n=== {scenario.name}: {scenario.about}\n", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        record = Path(made) / "figures"
        environment = {**os.environ, figures.RECORD: str(record), **_programs(installed)}
        output, failure = _watched(
            [sys.executable, "-m", scenario.module, *arguments], environment, limit_s
        )
        told, failures = figures.read(record)
    if failure:
        print(f"{scenario.name} {failure}", flush=True)
    return Outcome(
        scenario.name,
        scenario.about,
        shlex.join(command),
        time.monotonic() - began,
        tuple(told),
        tuple(failures),
        failure,
        output,
    )


def _programs(installed: Mapping[str, Installed]) -> dict[str, str]:
    """Servers that a peer needs beside it, as its benchmark finds them; on the path as well."""
    programs = {name: path for one in installed.values() for name, path in one.programs.items()}
    named = {
        f"KOWALSKI_BENCHMARK_{name.upper().replace('-', '_')}": str(path)
        for name, path in programs.items()
    }
    folders = dict.fromkeys(str(path.parent) for path in programs.values())
    return {**named, "PATH": os.pathsep.join([os.environ["PATH"], *folders])}


def _watched(command: list[str], environment: dict[str, str], limit_s: float) -> tuple[str, str]:
    """What it printed, passed on as it came, and why it did not come to its end."""
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    is_late = threading.Event()

    def stop() -> None:
        is_late.set()
        _end(process)

    timer = threading.Timer(limit_s, stop)
    timer.start()
    lines: list[str] = []
    assert process.stdout is not None
    try:
        with process.stdout:
            for line in process.stdout:
                print(line, end="", flush=True)
                lines.append(line)
        code = process.wait()
    finally:
        timer.cancel()
        _end(process)
    output = "".join(lines)[-OUTPUT_CHARS_MAX:]
    if is_late.is_set():
        return output, f"was stopped after {limit_s:.0f} s"
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return output, f"ended with {code}: {last[-200:]}" if code else ""


def _end(process: subprocess.Popen[str]) -> None:
    """As if somebody had pressed Ctrl-C, so that it stops what it started; then the hard way."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its group, which we made
        process.wait()
