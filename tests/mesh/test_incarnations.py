"""Each start of a node is told apart from the ones before."""

from __future__ import annotations

from pathlib import Path

import pytest

from kowalski.mesh.incarnations import IncarnationBook


def test_each_start_raises_the_incarnation_above_all_that_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "incarnation"
    assert IncarnationBook(path).begin() == 1
    assert IncarnationBook(path).begin() == 2
    IncarnationBook(path).keep(17)
    assert IncarnationBook(path).begin() == 18


def test_without_a_path_every_start_is_the_first() -> None:
    book = IncarnationBook(None)
    book.keep(9)
    assert book.begin() == 1


@pytest.mark.parametrize("content", ["", "seven", "-4", "\xff"])
def test_a_damaged_file_is_no_reason_not_to_start(tmp_path: Path, content: str) -> None:
    path = tmp_path / "incarnation"
    path.write_text(content, "utf-8")
    assert IncarnationBook(path).begin() == 1
    assert path.read_text() == "1\n"


def test_a_disk_that_refuses_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("")
    assert IncarnationBook(tmp_path / "occupied" / "incarnation").begin() == 1
