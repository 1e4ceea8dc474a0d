"""What was fetched and used, across restarts, on bad disks, and without end."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from kowalski.node.model_book import MODELS_MAX, SAVE_GAP_S, ModelBook


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_what_was_fetched_and_used_is_known_after_a_restart(tmp_path: Path) -> None:
    path, clock = tmp_path / "models.json", Clock()
    book = ModelBook(path, clock)
    book.pulled("a")
    clock.now += SAVE_GAP_S
    book.use("b")
    again = ModelBook(path, clock)
    assert (again.is_pulled("a"), again.is_pulled("b")) == (True, False)
    assert (again.used_at_s("a"), again.used_at_s("b")) == (1000.0, 1000.0 + SAVE_GAP_S)
    assert again.used_at_s("c") == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_uses_are_written_down_now_and_then(tmp_path: Path) -> None:
    path, clock = tmp_path / "models.json", Clock()
    book = ModelBook(path, clock)
    book.use("a")
    written = path.read_bytes()
    clock.now += SAVE_GAP_S / 2
    book.use("a")
    assert path.read_bytes() == written
    assert book.used_at_s("a") == clock.now


def test_what_was_removed_is_forgotten(tmp_path: Path) -> None:
    book = ModelBook(tmp_path / "models.json", Clock())
    book.pulled("a")
    book.removed("a")
    again = ModelBook(tmp_path / "models.json", Clock())
    assert (again.is_pulled("a"), again.used_at_s("a")) == (False, 0.0)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"pulled": 3}', '{"pulled": [], "used": {"a": "b"}}']
)
def test_a_book_that_cannot_be_read_is_begun_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "models.json"
    path.write_text(text)
    book = ModelBook(path, Clock())
    book.pulled("a")
    assert ModelBook(path, Clock()).is_pulled("a")


def test_a_book_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file" / "models.json"
    path.parent.write_text("")
    book = ModelBook(path, Clock())
    book.pulled("a")
    assert book.is_pulled("a")


def test_it_does_not_grow_without_end() -> None:
    clock = Clock()
    book = ModelBook(None, clock)
    for number in range(MODELS_MAX + 10):
        clock.now += 1
        book.use(str(number))
    assert book.used_at_s("5") == 0
    assert book.used_at_s(str(MODELS_MAX + 9)) == clock.now
