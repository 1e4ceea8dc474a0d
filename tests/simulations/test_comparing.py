"""The numbers of many seeds, beside those of another commit."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from simulations import comparing
from simulations.comparing import CompareError, elsewhere, numbers, table
from simulations.seeds import Tally


def test_numbers_are_of_all_seeds_together() -> None:
    total = Tally(
        outcomes=2,
        ends=Counter(answered=3, cancelled=1),
        messages=Counter({"task/grant": 40}),
        task_s=[1.0, 2.0, 3.0],
        cells_begun=9,
        cells_visible=6,
        cpu_s=5.0,
    )
    found = numbers(total)
    assert found["answered, %"] == 75
    assert found["messages / task"] == 10
    assert found["cells begun / visible"] == 1.5
    assert found["CPU / seed, s"] == 2.5
    assert found["task p50, s"] == 2.0


def test_nothing_at_all_has_numbers_too() -> None:
    assert numbers(Tally())["broken"] == 0


def test_the_table_shows_both_and_what_the_other_did_not_count() -> None:
    lines = table("abc", {"seeds": 2.0}, {"seeds": 3.0, "broken": 0.0}).splitlines()
    assert lines[1].split() == ["seeds", "2.000", "3.000", "1.500"]
    assert lines[2].split() == ["broken", "-", "0.000"]


def git(where: Path, *arguments: str) -> str:
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    done = subprocess.run(
        ["git", *who, *arguments], cwd=where, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of two commits, the first of which says so instead of simulating."""
    (tmp_path / "simulations").mkdir()
    main = tmp_path / "simulations/__main__.py"
    main.write_text("import json, sys; print(sys.argv); print(json.dumps({'seeds': 1.0}))")
    (tmp_path / "simulations/__init__.py").write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    git(tmp_path, "tag", "one")
    main.write_text("raise SystemExit('boom')")
    git(tmp_path, "commit", "-qam", "two")
    monkeypatch.setattr(comparing, "ROOT", tmp_path)
    return tmp_path


def test_the_other_commit_runs_in_a_folder_of_its_own_which_goes_afterwards(
    repository: Path,
) -> None:
    assert elsewhere("one", ["--seeds", "1"]) == {"seeds": 1.0}
    assert git(repository, "worktree", "list").count("\n") == 0
    assert "boom" in (repository / "simulations/__main__.py").read_text()


@pytest.mark.parametrize(("commit", "words"), [("none", "none"), ("HEAD", "fell over")])
def test_a_commit_that_is_not_there_or_does_not_run_is_said(
    repository: Path, commit: str, words: str
) -> None:
    with pytest.raises(CompareError, match=words):
        elsewhere(commit, [])
    assert git(repository, "worktree", "list").count("\n") == 0
