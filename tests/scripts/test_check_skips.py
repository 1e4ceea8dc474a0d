import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT

KNOWN = """
# no privileges in some containers
2 needs root: *

1 no model server
"""


def check(tmp_path: Path, *, reasons: list[str], known: str = KNOWN) -> subprocess.CompletedProcess:
    skipped = "".join(
        f'<testcase name="t{number}"><skipped type="pytest.skip" message="{reason}"/></testcase>'
        for number, reason in enumerate(reasons)
    )
    (tmp_path / "tests.xml").write_text(
        f"<testsuites><testsuite>{skipped}</testsuite></testsuites>"
    )
    (tmp_path / "known.txt").write_text(known)
    script = ROOT / "scripts" / "check_skips.py"
    return subprocess.run(
        [sys.executable, script, tmp_path / "tests.xml", tmp_path / "known.txt"],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize(
    "reasons",
    [[], ["no model server"], ["needs root: netns", "needs root: mount", "no model server"]],
)
def test_listed_skips_pass(tmp_path: Path, reasons: list[str]) -> None:
    result = check(tmp_path, reasons=reasons)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"skips: {len(reasons)}, all of them known\n"


def test_a_reason_that_is_not_listed_fails_and_is_named(tmp_path: Path) -> None:
    result = check(tmp_path, reasons=["no model server", "too slow today"])
    assert result.returncode == 1
    assert "too slow today" in result.stderr


def test_more_skips_than_listed_for_a_reason_fail(tmp_path: Path) -> None:
    result = check(tmp_path, reasons=["needs root: a", "needs root: b", "needs root: c"])
    assert result.returncode == 1
    assert "3 skipped, at most 2 listed: needs root: *" in result.stderr


def test_a_run_without_a_result_fails(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "check_skips.py"
    known = tmp_path / "known.txt"
    known.write_text(KNOWN)
    result = subprocess.run(
        [sys.executable, script, tmp_path / "none.xml", known], check=False, capture_output=True
    )
    assert result.returncode != 0


def test_a_line_of_the_list_without_a_count_is_refused(tmp_path: Path) -> None:
    assert check(tmp_path, reasons=[], known="needs root\n").returncode != 0


def test_the_list_of_this_repository_can_be_read(tmp_path: Path) -> None:
    known = (ROOT / "scripts" / "known_skips.txt").read_text()
    assert check(tmp_path, reasons=[], known=known).returncode == 0


SKIPPING = """
import pytest
import trio

@pytest.mark.trio
async def test_in_a_nursery():
    async with trio.open_nursery():
        pytest.skip("no go here")
"""


def test_a_reason_that_is_given_within_a_nursery_is_told(tmp_path: Path) -> None:
    (tmp_path / "test_skipping.py").write_text(SKIPPING)
    junit, known = tmp_path / "tests.xml", tmp_path / "known.txt"
    known.write_text("1 no go here")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    command += [f"--rootdir={tmp_path}", f"--junitxml={junit}", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    script = ROOT / "scripts" / "check_skips.py"
    subprocess.run([sys.executable, script, junit, known], check=True, timeout=30)
