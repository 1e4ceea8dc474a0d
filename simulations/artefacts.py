"""What a broken promise leaves behind: a file from which the story can be told again, anywhere."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from simulations.plan import Plan, from_json, to_json
from simulations.reports import Report
from simulations.witness import Violation

ROOT = Path(__file__).parent.parent
FORMAT = 1
"""Of the files; raised when an older reader would take a new one for something else."""


@dataclass(frozen=True, slots=True)
class Artefact:
    plan: Plan
    trace_hash: str
    violation: Violation | None
    commit: str
    crash: str = ""
    """Where the story fell over, if it did."""


def commit() -> str:
    """Of the code that is run, with a + where it has changed since; empty where git is not."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"],  # noqa: S607 whichever is on the path
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def save(report: Report, path: Path, *, crash: str = "") -> None:
    """Write the plan, how it ended, the last events, and the last steps of every machine."""
    written = {
        "format": FORMAT,
        "plan": json.loads(to_json(report.plan)),
        "trace_hash": report.trace_hash,
        "violation": asdict(report.violation) if report.violation else None,
        "commit": commit(),
        "crash": crash,
        "events": report.events,
        "recorders": report.recorders,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> Artefact:
    """Raises ValueError: this is no artefact, or of a later format. OSError: it cannot be read."""
    try:
        read: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as wrong:
        raise ValueError(f"{path} is no artefact of a simulation: {wrong}") from wrong
    if not isinstance(read, dict):
        raise ValueError(f"{path} is no artefact of a simulation")  # noqa: TRY004 a bad value
    if (later := read.get("format", FORMAT)) != FORMAT:
        raise ValueError(f"{path} is of format {later}; this version reads format {FORMAT}")
    try:
        broken = read["violation"]
        return Artefact(
            plan=from_json(json.dumps(read["plan"])),
            trace_hash=read["trace_hash"],
            violation=Violation(**broken) if broken else None,
            commit=read["commit"],
            crash=read.get("crash", ""),
        )
    except KeyError as lacking:
        raise ValueError(f"{path} is no artefact of a simulation: it has no {lacking}") from lacking
    except (TypeError, ValueError) as wrong:
        raise ValueError(f"{path} is no artefact of a simulation: {wrong}") from wrong
