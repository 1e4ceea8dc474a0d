from __future__ import annotations

import contextlib
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.repl import owner_limits
from kowalski.node.repl.languages import LANGUAGES
from kowalski.node.repl.limits import MIB, Limits
from kowalski.node.repl.owner_limits import NAMES, Setting, limits_of, read


def limits(*texts: str) -> Limits:
    return limits_of(map(read, texts))


def test_settings_know_the_languages_that_there_are() -> None:
    assert set(owner_limits.LANGUAGES) == set(LANGUAGES)


def test_nothing_set_is_what_it_was() -> None:
    plain, told = Limits(), limits()
    assert (told.session, told.cell) == (plain.session, plain.cell)
    assert all(told.of(language) == plain.of(language) for language in LANGUAGES)


def test_what_is_set_for_all_holds_for_those_with_limits_of_their_own_too() -> None:
    told = limits("memory=3G", "processes=12", "cell=5m")
    assert {told.of(language).memory_bytes for language in LANGUAGES} == {3 << 30}
    assert {told.of(language).processes for language in LANGUAGES} == {12}
    assert {told.cell_of(language).wall_s for language in LANGUAGES} == {300}
    assert told.of("java").folder_bytes == Limits().of("java").folder_bytes


def test_what_is_set_of_one_language_counts_more_in_whatever_order() -> None:
    for texts in (("memory=1G", "js.memory=2G"), ("js.memory=2G", "memory=1G")):
        told = limits(*texts, "js.cell=10", "js.output=128K")
        assert told.of("js").memory_bytes == 2 << 30
        assert told.of("python").memory_bytes == 1 << 30
        assert (told.cell_of("js").wall_s, told.cell_of("python").wall_s) == (10, math.inf)
        assert told.cell_of("js").output_bytes_kept == 128 * 1024


def test_no_process_may_use_more_than_its_session_unless_the_owner_says_so() -> None:
    assert limits("memory=100M").of("java").process_memory_bytes == 100 * MIB
    told = limits("memory=100M", "process-memory=1G")
    assert told.session.process_memory_bytes == 1 << 30


def test_every_limit_can_be_set() -> None:
    for name, known in NAMES.items():
        told = limits(f"{name}={known.least}")
        of = told.cell if known.is_of_cells else told.session
        assert getattr(of, known.field) == known.least


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("memory", "is not like memory=512M"),
        ("memory=", "is not like"),
        ("memory=-1M", "is not like"),
        ("memory=512MB", "is not like"),
        ("memory=512m", "a unit is one of K M G T"),
        ("cell=5M", "a unit is one of s m h d"),
        ("processes=5k", "a plain number"),
        ("memory=1K", "memory is between 32M and 16T"),
        ("cell=0", "cell is between"),
        ("fortran.memory=1G", "no language 'fortran'; there are python, bash"),
        ("speed=9", "no limit 'speed'; there are memory, process-memory"),
    ],
)
def test_what_makes_no_sense_is_told_in_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r".") as wrong:
        read(text)
    assert words in str(wrong.value)


@given(st.text(max_size=40))
def test_any_text_is_a_setting_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(read(text), Setting)


def test_the_page_for_owners_names_every_limit() -> None:
    page = (
        (Path(__file__).parents[3] / "docs" / "how-to" / "limits.md")
        .read_text()
        .partition("## Network")[0]
    )
    assert [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")] == [*NAMES]
