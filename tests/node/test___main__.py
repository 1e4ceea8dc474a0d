"""`python -m kowalski.node` is the program."""

from __future__ import annotations

import subprocess
import sys


def test_the_module_runs_as_the_program() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "kowalski.node", "--version"],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.stdout.startswith("kowalski-node, version ")
