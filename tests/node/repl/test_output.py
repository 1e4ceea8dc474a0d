from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.repl.output import KeptOutput


def test_short_output_is_kept_whole() -> None:
    kept = KeptOutput(10)
    for part in (b"01234", b"56", b"789"):
        kept.add(part)
    assert kept.kept() == b"0123456789"


def test_long_output_keeps_head_and_tail_and_says_what_is_missing() -> None:
    kept = KeptOutput(6)
    for part in (b"ab", b"cdefgh", b"i"):
        kept.add(part)
    assert kept.kept() == b"abc\n[... 3 bytes cut ...]\nghi"
    assert kept.total_bytes == 9


@given(st.lists(st.binary(max_size=20), max_size=30), st.integers(2, 40))
def test_what_is_kept_and_what_is_missing_make_the_whole(parts: list[bytes], bound: int) -> None:
    kept, whole = KeptOutput(bound), b"".join(parts)
    for part in parts:
        kept.add(part)
    assert kept.total_bytes == len(whole)
    if len(whole) <= bound // 2 * 2:
        assert kept.kept() == whole
        return
    mark = re.search(rb"\n\[\.\.\. (\d+) bytes cut \.\.\.\]\n", kept.kept()[bound // 2 :])
    assert mark
    half = bound // 2
    assert kept.kept()[:half] == whole[:half]
    assert kept.kept().endswith(whole[-half:])
    assert int(mark[1]) == len(whole) - 2 * half


def test_a_flood_costs_no_more_than_the_bound_and_one_part() -> None:
    kept = KeptOutput(1000)
    for _ in range(10_000):
        kept.add(b"x" * 400)
    assert sum(map(len, kept._tail)) <= 500 + 400
