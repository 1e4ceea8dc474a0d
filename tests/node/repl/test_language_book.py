from __future__ import annotations

from pathlib import Path

import pytest

from kowalski.node.repl.language_book import LanguageBook, Line


def test_lines_are_remembered_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "languages.json"
    LanguageBook(path).write("java", "then", "17")
    LanguageBook(path).write("go", "then", "")
    LanguageBook(path).write("java", "now", "21")
    assert LanguageBook(path).read() == {
        "java": Line(condition="now", version="21"),
        "go": Line(condition="then", version=""),
    }
    assert [each.name for each in tmp_path.iterdir()] == ["languages.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"java": 1}', '{"java": {"version": "1"}}'])
def test_a_book_that_makes_no_sense_is_an_empty_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "languages.json"
    path.write_text(text)
    assert LanguageBook(path).read() == {}
    LanguageBook(path).write("java", "now", "21")
    assert LanguageBook(path).read()["java"].version == "21"


def test_without_a_place_nothing_is_remembered_and_a_bad_place_is_no_error(
    tmp_path: Path,
) -> None:
    for book in (LanguageBook(None), LanguageBook(tmp_path / "no" / "such" / "folder")):
        book.write("java", "now", "21")
        assert book.read() == {}
