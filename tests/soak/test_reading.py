"""A15 of the loop's acceptance criteria at 1 MB; `make reading` is the same at 10 and 100 MB."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rule_based_reader import make_hay, questions
from tests.soak.reading import open_reading_room

MEGABYTE = 1_000_000


def test_questions_about_the_hay_have_right_answers_that_differ() -> None:
    hay = make_hay(20_000)
    wanted = dict(questions(hay))
    assert len(set(wanted.values())) == 4
    lines = hay.text.splitlines()
    assert f"the secret of Quito is {wanted['What is the secret of Quito?']}" in lines
    teal = sum("colour teal," in line for line in lines)
    assert wanted["How many records have the colour teal?"] == str(teal)
    codes = [line.rpartition(" ")[2] for line in lines if line.startswith("record")]
    assert len(codes) - len(set(codes)) == len(hay.pairs) > 0


@pytest.mark.trio
@pytest.mark.real
@pytest.mark.timeout(300)
async def test_a_megabyte_is_read_through_cells_and_sub_calls_and_answered_exactly(
    tmp_path: Path,
) -> None:
    hay = make_hay(MEGABYTE)
    async with open_reading_room(tmp_path) as room:
        asked = 0
        async for one in room.ask_all(hay):
            asked += 1
            assert one.result.text == one.wanted, one.question
            assert one.result.metrics.attempts == one.served, "as the reader counted"
            assert one.result.metrics.sub_calls >= 10, "in parts"
        assert asked == 4
