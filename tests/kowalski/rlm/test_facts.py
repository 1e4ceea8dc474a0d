from __future__ import annotations

import pytest

from kowalski.rlm.facts import facts_of, unfounded, words_of


@pytest.mark.parametrize(
    ("text", "exact", "names"),
    [
        ("It took 1,250.50 crowns on 2024-01-02.", {"1250.50", "2024-01-02"}, set()),
        ("See ring_buffer in config.py, or 192.168.0.7:8080.",
         {"ring_buffer", "config.py", "192.168.0.7:8080"}, set()),
        ("The HTTPServer wrote to ops@example.org about getValue.",
         {"httpserver", "ops@example.org", "getvalue"}, set()),
        ("Then Ingrid met Tomasz. Nobody saw NATO.", set(), {"ingrid", "tomasz", "nato"}),
        ("Gestern sah Jürgen die Łódź nicht, nur Ольга.", set(), {"jürgen", "łódź", "ольга"}),
        ("One of 3 was lost.", set(), set()),
        ("", set(), set()),
    ],
)  # fmt: skip
def test_numbers_identifiers_and_names_are_facts(
    text: str, exact: set[str], names: set[str]
) -> None:
    found = facts_of(text)
    assert (set(found.exact), set(found.names)) == (exact, names)


def test_a_number_is_the_same_however_its_thousands_are_set_apart() -> None:
    spellings = ("1,234,567", "1234567", "1\u202f234\u202f567", "1'234'567")
    assert {facts_of(one).exact for one in spellings} == {frozenset({"1234567"})}


def test_what_a_summary_made_up_is_found() -> None:
    source = facts_of("Node desk-7 at 192.168.0.7:8080 lost 1,250 frames on 2024-03-09.")
    assert not unfounded("On 2024-03-09, 1250 frames were lost; port 8080 of 192.168.0.7.", source)
    assert unfounded("It lost 1251 frames.", source) == {"1251"}
    assert unfounded("It called ring_buffer.", source) == {"ring_buffer"}


def test_words_that_a_fact_is_made_of() -> None:
    assert words_of(["192.168.0.7:8080", "ring_buffer"]) == {
        "192", "168", "0", "7", "8080", "ring_buffer",
    }  # fmt: skip
