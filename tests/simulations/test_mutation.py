"""One line made wrong, in one process, without touching a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from simulations.mutation import Change, StaleMutantError, install

ROOT = Path(__file__).parents[2]
FENCE = Change("node/core/fences.py", "if term < highest:", "if term < 0:")


def test_a_change_is_made_where_its_line_stands_once() -> None:
    assert FENCE.module == "kowalski.node.core.fences"
    assert FENCE.made_in("if term < highest:\n    no()") == "if term < 0:\n    no()"
    FENCE.check()


@pytest.mark.parametrize("source", ["", "if term < highest:\n" * 2])
def test_a_change_whose_line_is_gone_or_stands_twice_is_stale(source: str) -> None:
    with pytest.raises(StaleMutantError, match=r"fences\.py has [02] times"):
        FENCE.made_in(source)


def test_what_is_imported_already_is_not_changed() -> None:
    import kowalski.node.core.fences  # noqa: F401, PLC0415

    with pytest.raises(AssertionError, match="imported already"):
        install([FENCE])


def test_the_changed_line_is_what_runs() -> None:
    path = ROOT / "protocol/ids.py"
    before = path.read_text(encoding="utf-8")
    code = """
from simulations.mutation import Change, install
install([
    Change("protocol/ids.py", "import base64\\n", "import base64\\n\\nCHANGED = True\\n"),
    Change("protocol/ids.py", "def topic(", "AGAIN = CHANGED\\n\\n\\ndef topic("),
])
from kowalski.protocol import ids
assert ids.AGAIN
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert path.read_text(encoding="utf-8") == before
