"""What stands behind the `?` of a `--backend`."""

from __future__ import annotations

import pytest

from kowalski.node.backends.options import SLOTS_MAX, parse_options
from kowalski.protocol.errors import ConfigError

KNOWN = ("slots", "context", "gpu_layers")


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("", {}),
        ("slots=4", {"slots": 4}),
        ("slots=4&context=16384&gpu_layers=-1", {"slots": 4, "context": 16384, "gpu_layers": -1}),
        (f"slots={SLOTS_MAX}", {"slots": SLOTS_MAX}),
    ],
)
def test_options_are_whole_numbers_by_name(query: str, options: dict[str, int]) -> None:
    assert parse_options("b", query, KNOWN) == options


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("slot=4", "backend b: unknown option 'slot'; known: slots, context, gpu_layers"),
        ("slots=many", "backend b: slots: expected a whole number, not 'many'"),
        ("slots", "backend b: slots: expected a whole number, not ''"),
        ("slots=0", "backend b: slots: expected at least 1, not 0"),
        ("context=-1", "backend b: context: expected at least 1, not -1"),
        (f"slots={SLOTS_MAX + 1}", "backend b: slots: expected at most 10000, not 10001"),
    ],
)
def test_one_that_will_not_do_is_named_with_its_backend(query: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_options("b", query, KNOWN)
