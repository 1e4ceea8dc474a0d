"""When an answer is the end: shape, then quality."""

from __future__ import annotations

import json

import pytest

from kowalski.protocol.messages.journal import ModelFailed
from kowalski.protocol.messages.task import Quality, Shape
from kowalski.rlm.session import Finish
from tests.kowalski.rlm.session_world import World, spec

WANTED = Quality(threshold=0.8, patience=3)
INTEGER = Shape(json_schema='{"type": "integer"}', tries=3)


def block(code: str) -> str:
    return f"```python\n{code}\n```\n"


def solve(
    *replies: str,
    judgements: tuple[str | ModelFailed, ...] = ("1",),
    turns: int = 9,
    **wishes: object,
) -> tuple[Finish, World]:
    """In mode `rlm`; where answers are judged, every other reply is the judge's."""
    world = World(replies, judgements=judgements)
    return world.go(spec("How many?", "rlm", turns=turns, inputs=["a.txt"], **wishes)), world


# --- quality ------------------------------------------------------------------------------------


def test_a_task_ends_at_the_first_answer_that_is_judged_good_enough() -> None:
    replies = [block("ready 40"), "", block("ready 41"), "", block("ready 42")]
    scores = ("0.4: too low", "0.6: nearly", "0.9: right")
    finish, world = solve(*replies, judgements=scores, quality=WANTED)
    assert finish == Finish("answered", "42", "", 0.9)
    assert [asked.purpose for asked in world.asked] == ["turn", "evaluate"] * 3


def test_length_never_counts_and_a_short_answer_is_judged_like_any_other() -> None:
    finish, _ = solve(block("ready 42"), judgements=("0.8",), quality=WANTED)
    assert finish == Finish("answered", "42", "", 0.8)


def test_the_model_is_told_the_score_and_what_is_missing_beside_its_outputs() -> None:
    _, world = solve(
        block("look") + block("ready 40"),
        "",
        block("ready 42"),
        judgements=("0.4: too low", "1"),
        quality=WANTED,
    )
    told = world.asked[2].messages[-1].content
    assert "ran look after ()" in told
    assert "It was judged 0.40 where 0.8 is wanted: too low" in told
    assert "Turn 2 of 9." in told


def test_the_judge_sees_question_and_answer_alone_and_may_be_another_model() -> None:
    wanted = WANTED.model_copy(update={"model": "judge"})
    _, world = solve(block("ready 42"), judgements=("1",), quality=wanted)
    judged = world.asked[1]
    assert judged.model == "judge"
    (message,) = judged.messages
    assert "How many?" in message.content
    assert "\n42\n" in message.content
    assert "context" not in message.content


def test_scores_that_do_not_rise_end_by_patience_with_the_best_answer() -> None:
    replies = [text for n in range(9) for text in (block(f"ready {n}"), "")]
    scores = ("0.3", "0.5", "0.5", "0.4", "0.5", "0.9")
    finish, world = solve(*replies, judgements=scores, quality=WANTED)
    assert finish.answer == "1"
    assert finish.score == 0.5
    assert finish.detail == "below: judged 0.50 where 0.8 was wanted; no better in 3 judgements"
    assert len(world.asked) == 10


def test_out_of_turns_the_best_answer_is_taken() -> None:
    replies = [text for n in range(9) for text in (block(f"ready {n}"), "")]
    finish, _ = solve(*replies, judgements=("0.5", "0.2"), turns=2, quality=WANTED)
    assert (finish.answer, finish.score) == ("0", 0.5)
    assert finish.detail.endswith("no better in 2 turns")


def test_an_answer_that_was_turned_down_is_not_judged_again_until_it_changes() -> None:
    replies = [block("ready 40"), "", block("look"), block("ready 40"), block("ready 42")]
    finish, world = solve(*replies, judgements=("0.4", "0", "0.9"), quality=WANTED)
    assert finish.answer == "42"
    assert [asked.purpose for asked in world.asked].count("evaluate") == 2


@pytest.mark.parametrize(
    ("judgement", "why"),
    [
        ("splendid!", "unjudged: the judge gave no score, but: 'splendid!'"),
        ("<think>0.1</think> fine", "unjudged: the judge gave no score, but: "),
        (ModelFailed(call=0, code="backend", detail="gone"), "unjudged: backend: gone"),
    ],
)
def test_an_answer_that_nobody_can_judge_is_taken_and_says_so(
    judgement: str | ModelFailed, why: str
) -> None:
    finish, _ = solve(block("ready 42"), judgements=(judgement,), quality=WANTED)
    assert (finish.outcome, finish.answer, finish.score) == ("answered", "42", None)
    assert finish.detail.startswith(why)


def test_a_direct_answer_is_judged_and_improved_too() -> None:
    world = World(("short", "", "longer"), judgements=("0.2: too short", "0.9"))
    finish = world.go(spec("Why?", "direct", quality=WANTED))
    assert finish == Finish("answered", "longer", "", 0.9)
    last = world.asked[2].messages
    assert [message.role for message in last] == ["user", "assistant", "user"]
    assert "It was judged 0.20" in last[-1].content


def test_the_answer_of_blocks_is_judged_too() -> None:
    world = World(("meagre", "", "rich"), judgements=("0.2", "0.9"))
    finish = world.go(spec(f"Sum up:\n{block(chr(120))}", "blocks", quality=WANTED))
    assert finish == Finish("answered", "rich", "", 0.9)


# --- shape --------------------------------------------------------------------------------------


def test_a_typed_answer_is_json_of_its_schema() -> None:
    finish, world = solve(block("ready  42 "), shape=INTEGER)
    assert finish == Finish("answered", "42", "")
    assert INTEGER.json_schema in world.asked[0].messages[-1].content


def test_what_does_not_fit_goes_back_to_the_model() -> None:
    finish, world = solve(block("ready forty-two"), block("ready 42"), shape=INTEGER)
    assert finish == Finish("answered", "42", "")
    told = world.asked[1].messages[-1].content
    assert "It is not of the wanted shape: it is no JSON" in told
    assert "Turn 2 of 9." in told


def test_after_so_many_tries_the_error_holds_the_raw_value() -> None:
    finish, world = solve(
        block("ready one"), block("ready two"), block("ready three"), shape=INTEGER
    )
    assert (finish.outcome, finish.answer) == ("failed", "three")
    assert finish.detail.startswith("bad_answer: it is no JSON")
    assert finish.detail.endswith("(after 3 tries)")
    assert len(world.asked) == 3


@pytest.mark.parametrize(
    ("last", "outcome", "answer"),
    [("It is 42.", "failed", "It is 42."), ("```json\n42\n```", "answered", "42")],
)
def test_an_extracted_answer_has_the_shape_or_fails(last: str, outcome: str, answer: str) -> None:
    finish, world = solve(block("x"), last, turns=1, shape=INTEGER)
    assert (finish.outcome, finish.answer) == (outcome, answer)
    assert world.asked[1].json_schema == INTEGER.json_schema


def test_an_answer_that_was_set_and_never_ready_has_the_shape_or_fails() -> None:
    assert solve(block("answer 42"), turns=1, shape=INTEGER)[0].answer == "42"
    finish, _ = solve(block("answer many"), turns=1, shape=INTEGER)
    assert (finish.outcome, finish.answer) == ("failed", "many")


def test_a_server_may_bind_a_direct_reply_to_the_schema_and_code_is_never_bound() -> None:
    world = World(("42",))
    assert world.go(spec("?", "direct", shape=INTEGER)).answer == "42"
    assert world.asked[0].json_schema == INTEGER.json_schema
    _, world = solve(block("ready 42"), shape=INTEGER)
    assert world.asked[0].json_schema is None


def test_the_shape_comes_first_and_only_what_has_it_is_judged() -> None:
    schema = Shape(json_schema=json.dumps({"type": "array", "items": {"type": "integer"}}))
    replies = [block("ready nothing"), block("ready [1]"), "", block("ready [1, 2]")]
    world = World(tuple(replies), judgements=("0", "0.4", "0.9"))
    finish = world.go(spec("?", "rlm", turns=9, inputs=["a"], quality=WANTED, shape=schema))
    assert finish == Finish("answered", "[1, 2]", "", 0.9)
    purposes = [asked.purpose for asked in world.asked]
    assert purposes == ["turn", "turn", "evaluate", "turn", "evaluate"]
