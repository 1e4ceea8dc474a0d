"""The same seeds with the code of another commit, side by side: what a change costs or brings.

The other commit is checked out into a folder of its own and runs there, with this environment.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory

from simulations.seeds import Tally

ROOT = Path(__file__).parent.parent

Numbers = dict[str, float]


class CompareError(Exception):
    """There is no such commit, or its simulations do not run."""


def numbers(total: Tally) -> Numbers:
    """Of all seeds together. Times in virtual seconds, but for the CPU's."""
    seeds, tasks = max(total.outcomes, 1), max(total.ends.total(), 1)
    cuts = quantiles(total.task_s, n=100) if len(total.task_s) > 1 else [0.0] * 99
    return {
        "seeds": total.outcomes,
        "broken": len(total.broken),
        "tasks": total.ends.total(),
        "answered, %": 100 * total.ends["answered"] / tasks,
        "task p50, s": cuts[49],
        "task p99, s": cuts[98],
        "cells begun / visible": total.cells_begun / max(total.cells_visible, 1),
        "messages / task": total.messages.total() / tasks,
        "CPU / seed, s": total.cpu_s / seeds,
    }


def elsewhere(commit: str, arguments: list[str]) -> Numbers:
    """The numbers of `python -m simulations run ARGUMENTS --json` with the code of `commit`.

    Raises:
        CompareError: with the last line that was said.
    """
    with TemporaryDirectory(prefix="kowalski-compare-") as made:
        tree = Path(made) / "tree"
        _run(["git", "worktree", "add", "--detach", "--quiet", str(tree), commit], ROOT)
        try:
            said = _run(
                [sys.executable, "-m", "simulations", "run", *arguments, "--json"],
                tree,
                fine={0, 1},
            )
        finally:
            _run(["git", "worktree", "remove", "--force", str(tree)], ROOT)
    try:
        found: Numbers = json.loads(said.strip().rpartition("\n")[2])
    except ValueError as error:
        raise CompareError("it knows no `run --json`, or fell over") from error
    return found


def _run(
    command: list[str], where: Path, *, fine: frozenset[int] | set[int] = frozenset({0})
) -> str:
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    if done.returncode not in fine:
        raise CompareError(done.stderr.strip().rpartition("\n")[2] or f"{command[0]} failed")
    return done.stdout


def table(base: str, theirs: Numbers, ours: Numbers) -> str:
    """Both, and how much there is now of what there was."""
    lines = [f"{'':24}{base:>14}{'here':>12}{'ratio':>9}"]
    for name, now in ours.items():
        then = theirs.get(name)
        ratio = f"{now / then:.3f}" if then else ""
        lines.append(f"{name:24}{'-' if then is None else f'{then:.3f}':>14}{now:>12.3f}{ratio:>9}")
    return "\n".join(lines)
