"""Texts and files for a task, where the node can read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kowalski.contexts import spooled
from kowalski.errors import ConfigError


def test_texts_become_files_for_as_long_as_they_are_needed(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("call me")
    with spooled({"a": "grüße", "b": b"\x00\xff", "c": book}) as files:
        read = {one["name"]: Path(one["path"]).read_bytes() for one in files}
        assert read == {"a": "grüße".encode(), "b": b"\x00\xff", "c": b"call me"}
        made = [Path(one["path"]) for one in files[:2]]
        assert all(path.stat().st_mode & 0o077 == 0 for path in made), "nobody else's to read"
    assert not any(path.exists() for path in made)
    assert book.exists()


def test_one_alone_has_a_name_of_its_own(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.touch()
    with spooled(book) as files:
        assert [one["name"] for one in files] == ["book.txt"]
    with spooled("text") as files:
        assert [one["name"] for one in files] == ["context"]
    with spooled(None) as files:
        assert files == []


def test_a_file_that_is_not_there_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"), spooled({"b": tmp_path / "x"}):
        pass
