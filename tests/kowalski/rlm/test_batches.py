"""Drafts of one answer, and notes of a long text's parts: each batch at once, in order."""

from __future__ import annotations

import random

import pytest

from kowalski.protocol.messages.journal import ModelFailed, Opened
from kowalski.protocol.messages.task import Asking, Budget
from kowalski.rlm import session
from kowalski.rlm.session import AskModel, Finish, SessionLimits
from tests.kowalski.rlm.session_world import LIMITS, World, finished, replied, spec

THREE = Asking(drafts=3)
GONE = ModelFailed(call=0, code="backend", detail="gone")
BLOCK = "```python\nx\n```\n"


def drafting(**more: object) -> tuple[session.Session, tuple[session.Effect, ...]]:
    fresh = session.new_session(spec("Why?", "direct", asking=THREE, **more), limits=LIMITS)
    return session.step(fresh, Opened(mode="direct", model="m"))


def test_drafts_go_out_at_once_and_one_more_call_makes_one_answer_of_them() -> None:
    state, effects = drafting()
    assert [effect.call for effect in effects if isinstance(effect, AskModel)] == [0, 1, 2]
    assert len({effect.messages for effect in effects if isinstance(effect, AskModel)}) == 1
    for call in (2, 0):
        state, effects = session.step(state, replied(call, f"draft {call}"))
        assert effects == ()
    state, effects = session.step(state, replied(1, "draft 1"))
    (ask,) = effects
    assert isinstance(ask, AskModel)
    assert (ask.call, ask.purpose) == (3, "aggregate")
    told = ask.messages[0].content
    assert told.index("draft 0") < told.index("draft 1") < told.index("draft 2")
    assert "Why?" in told
    _, effects = session.step(state, replied(3, "the best of them"))
    assert effects[-1] == Finish("answered", "the best of them", "")


def test_a_draft_that_fails_does_not_fail_the_others() -> None:
    world = World(("one", GONE, "three", "both"))
    assert world.go(spec("Why?", "direct", asking=THREE)).answer == "both"
    told = world.asked[3].messages[0].content
    assert "one" in told
    assert "three" in told


def test_the_only_draft_that_came_is_the_answer() -> None:
    world = World((GONE, "", "three"))
    assert world.go(spec("Why?", "direct", asking=THREE)).answer == "three"
    assert len(world.asked) == 3


def test_when_all_drafts_fail_the_first_failure_is_told() -> None:
    world = World((GONE,))
    finish = world.go(spec("Why?", "direct", asking=THREE))
    assert finish == Finish("failed", "", "backend: gone")


def test_where_nobody_makes_one_answer_of_them_the_first_draft_stands() -> None:
    world = World(("one", "two", "three", GONE))
    assert world.go(spec("Why?", "direct", asking=THREE)).answer == "one"


@pytest.mark.parametrize(
    ("calls", "purposes"), [(1, ["direct"]), (3, ["draft", "draft", "aggregate"])]
)
def test_there_are_as_many_drafts_as_the_budget_has_calls_for(
    calls: int, purposes: list[str]
) -> None:
    world = World(("one",))
    finish = world.go(spec("Why?", "direct", asking=THREE, budget=Budget(calls=calls)))
    assert finish.answer == "one"
    assert [asked.purpose for asked in world.asked] == purposes


def test_drafts_of_a_refinement_may_hold_code_which_is_run() -> None:
    world = World(("one", "two", "three", "```python\ny\n```", "done"))
    finish = world.go(spec(BLOCK, "blocks", asking=THREE))
    assert finish.answer == "done"
    assert [cell.code for cell in world.cells] == ["x\n", "y\n"]
    assert len(world.asked) == 5, "only the first refinement is drafted"


# --- parts --------------------------------------------------------------------------------------

SMALL = SessionLimits(window_tokens=1000, output_chars=4000)


def test_a_text_too_long_for_one_question_is_noted_down_in_parts_and_then_answered() -> None:
    lines = "".join(f"value {number}\n" for number in range(400))
    world = World(
        tuple(f"note {number}" for number in range(20)), run=lambda cell: finished(cell.cell, lines)
    )
    finish = world.go(spec(f"Sum up.\n{BLOCK}", "blocks"), limits=SMALL)
    purposes = [asked.purpose for asked in world.asked]
    parts = purposes.count("part")
    assert parts >= 2
    assert purposes == ["part"] * parts + ["refine"]
    assert finish.answer == f"note {parts}"
    read = "".join(asked.messages[0].content for asked in world.asked[:parts])
    assert "value 0\n" in read
    assert "value 399\n" in read
    assert f"part {parts}." in world.asked[parts - 1].messages[0].content
    told = world.asked[-1].messages[0].content
    assert told.index("Part 1:\nnote 0") < told.index("Part 2:\nnote 1")


def test_a_part_that_nobody_read_is_told_to_be_missing() -> None:
    lines = "".join(f"value {number}\n" for number in range(400))
    world = World(("note", GONE, "note"), run=lambda cell: finished(cell.cell, lines))
    world.go(spec(f"Sum up.\n{BLOCK}", "blocks"), limits=SMALL)
    assert "Part 2:\n(not read: backend)" in world.asked[-1].messages[0].content


def test_when_no_part_is_read_the_outputs_are_the_answer_and_say_so() -> None:
    lines = "".join(f"value {number}\n" for number in range(400))
    world = World((GONE,), run=lambda cell: finished(cell.cell, lines))
    finish = world.go(spec(f"Sum up.\n{BLOCK}", "blocks"), limits=SMALL)
    assert finish.outcome == "answered"
    assert finish.detail == "unrefined: backend: gone"
    assert "value 0\n" in finish.answer


def test_the_order_of_arrival_changes_nothing() -> None:
    def answer(seed: int) -> Finish:
        world = World(("one", "two", "three", "best"))
        order = random.Random(seed)
        return world.go(spec("Why?", "direct", asking=THREE), take=order.randrange)

    assert {answer(seed) for seed in range(10)} == {Finish("answered", "best", "")}
