"""How many turns there are: as many as were asked for, and as the budget has calls for."""

from __future__ import annotations

import pytest

from kowalski.protocol.messages.task import Budget
from kowalski.rlm.session import Finish
from tests.kowalski.rlm.session_world import World, spec


def block(code: str) -> str:
    return f"```python\n{code}\n```\n"


def solve(
    *replies: str, calls: int | None = None, tokens: int | None = None
) -> tuple[Finish, World]:
    world = World(replies)
    limits = Budget(calls=calls, tokens=tokens)
    return world.go(spec("?", "rlm", turns=30, inputs=["a"], budget=limits)), world


def test_the_last_call_of_a_budget_is_kept_for_the_last_word() -> None:
    finish, world = solve(block("x"), block("y"), "It is 7.", calls=3)
    assert finish.answer == "It is 7."
    assert [asked.purpose for asked in world.asked] == ["turn", "turn", "extract"]


def test_an_answer_that_was_set_saves_the_last_call() -> None:
    finish, world = solve(block("answer 7"), calls=3)
    assert finish == Finish(
        "answered",
        "7",
        "unready: the session never marked it as ready before its calls were used up",
    )
    assert len(world.asked) == 2


def test_a_budget_of_one_call_is_one_turn() -> None:
    finish, world = solve(block("ready 7"), calls=1)
    assert finish == Finish("answered", "7", "")
    finish, world = solve(block("x"), calls=1)
    assert finish == Finish("failed", "", "calls: 1 model calls are used up")
    assert len(world.asked) == 1


def test_tokens_end_a_task_with_what_there_is() -> None:
    finish, world = solve(block("answer 7"), tokens=30)  # each reply uses 12
    assert finish.answer == "7"
    assert "before its tokens were used up" in finish.detail
    assert len(world.asked) == 3


@pytest.mark.parametrize("replies", [(block("x"),), ("no code",), (block("ready") * 2,)])
def test_no_call_is_asked_for_that_the_budget_does_not_have(replies: tuple[str, ...]) -> None:
    for calls in range(1, 6):
        _, world = solve(*replies, calls=calls)
        assert len(world.asked) <= calls


def test_what_is_left_is_told_with_every_turn() -> None:
    _, world = solve(block("x"), "no code", block("ready 7"), calls=9)
    told = [asked.messages[-1].content for asked in world.asked]
    assert "Left: 9 of 9 model calls." in told[0]
    assert "Turn 2 of 30. Left: 8 of 9 model calls." in told[1]
    assert "Left: 7 of 9 model calls." in told[2]


def test_without_a_budget_nothing_is_said_of_it() -> None:
    _, world = solve(block("x"), block("ready 7"))
    assert all("Left" not in asked.messages[-1].content for asked in world.asked)
