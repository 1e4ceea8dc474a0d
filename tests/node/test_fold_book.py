"""Which folds are known, across restarts, on bad disks, and without end."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from kowalski.node.fold_book import FOLDS_MAX, NAME_CHARS_MAX, FoldBook
from kowalski.protocol.ids import content_hash


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


ONE, TWO = content_hash(b"one"), content_hash(b"two")


def test_folds_are_known_after_a_restart_the_newest_first(tmp_path: Path) -> None:
    path, clock = tmp_path / "folds.json", Clock()
    book = FoldBook(path, clock)
    book.add(ONE, 5, "one.txt")
    book.add(TWO, 7, "how it\nbegins " * 100)
    known = FoldBook(path, clock).newest_first()
    assert known == book.newest_first()
    assert [(one.handle, one.bytes) for one in known] == [(TWO, 7), (ONE, 5)]
    assert known[0].name.startswith("how it begins how it")
    assert len(known[0].name) <= NAME_CHARS_MAX
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    book.add(ONE, 5, "one.txt")
    assert [one.handle for one in book.newest_first()] == [ONE, TWO]


def test_the_oldest_are_forgotten_beyond_a_bound_and_those_whose_originals_are_gone(
    tmp_path: Path,
) -> None:
    path = tmp_path / "folds.json"
    rows = [
        {"handle": content_hash(b"%d" % number), "bytes": number, "name": "x", "at_s": number}
        for number in range(FOLDS_MAX)
    ]
    path.write_text(json.dumps(rows))
    book = FoldBook(path, Clock())
    book.add(ONE, FOLDS_MAX, "one")
    assert [one.bytes for one in book.newest_first()] == list(range(FOLDS_MAX, 0, -1))
    book.forget(frozenset({content_hash(b"9"), content_hash(b"never known")}))
    assert len(book.newest_first()) == FOLDS_MAX - 1
    assert FoldBook(path, Clock()).newest_first() == book.newest_first()


UNREADABLE = ["", "{", "{}", "3", "[3]", '[{"handle": 3}]', '[{"handle": "a"}]']


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_book_that_cannot_be_read_is_begun_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "folds.json"
    path.write_text(text)
    book = FoldBook(path, Clock())
    assert book.newest_first() == ()
    book.add(ONE, 5, "one")
    assert len(FoldBook(path, Clock()).newest_first()) == 1


def test_a_disk_that_takes_nothing_costs_the_memory_of_folds_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    book = FoldBook(tmp_path / "file" / "folds.json", Clock())
    book.add(ONE, 5, "one")
    assert len(book.newest_first()) == 1
