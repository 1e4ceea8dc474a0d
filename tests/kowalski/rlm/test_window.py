from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from kowalski.protocol.ids import content_hash
from kowalski.protocol.messages.journal import Folded, ModelReplied, Opened
from kowalski.rlm import session
from kowalski.rlm.session import Finish, Fold
from kowalski.rlm.session_state import message_tokens
from tests.kowalski.rlm.session_world import LIMITS, World, folded, replied, spec

SMALL = session.SessionLimits(window_tokens=1500)
PRINT = "I print.\n```python\nx\n```\n"
READY = "```python\nready 42\n```\n"


def long_world(turns: int) -> World:
    return World((*(f"turn {turn}: {'word ' * 60}\n{PRINT}" for turn in range(turns)), READY))


def folds_of(world: World) -> list[Folded]:
    return [event for event in world.journal if isinstance(event, Folded)]


def test_a_window_that_fits_is_never_folded() -> None:
    world = long_world(10)
    world.go(spec("?", "rlm", turns=30))
    assert folds_of(world) == []
    for one, two in pairwise(world.asked):
        assert two.messages[: len(one.messages)] == one.messages


def test_a_window_that_does_not_fit_is_folded_before_the_next_question() -> None:
    world = long_world(20)
    finish = world.go(spec("?", "rlm", turns=30), limits=SMALL)
    assert finish == Finish("answered", "42", "")
    assert len(folds_of(world)) > 1
    for asked in world.asked:
        assert sum(map(message_tokens, asked.messages)) <= SMALL.window_tokens


@pytest.mark.parametrize(("factor", "is_folded"), [(0.8, False), (2.5, True)])
def test_a_window_fits_as_the_model_counts_it_once_the_model_has_counted(
    factor: float, is_folded: bool
) -> None:
    world = long_world(20)
    world.factor = factor
    limits = session.SessionLimits(window_tokens=4000)
    assert world.go(spec("?", "rlm", turns=30), limits=limits).answer == "42"
    counted = [world.counted(asked) for asked in world.asked]
    assert max(counted) <= limits.window_tokens
    # And is not folded long before it is full.
    assert max(counted) > 0.7 * limits.window_tokens
    assert bool(folds_of(world)) == is_folded


def test_what_was_learnt_of_the_tokens_comes_back_with_the_journal() -> None:
    world = long_world(5)
    world.factor = 2.0
    task = spec("?", "rlm", turns=30)
    world.go(task, limits=LIMITS)
    state = session.replay(session.new_session(task, limits=LIMITS), world.journal[:-1])
    assert state.scale.is_learnt
    assert state.scale.factor == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize("more", [{"attempts": 2}, {"estimated": True}])
def test_only_one_servers_own_count_teaches(more: dict[str, Any]) -> None:
    task = spec("word " * 500, "rlm")
    fresh = session.new_session(task, limits=LIMITS)
    state = session.replay(fresh, [Opened(mode="rlm", model="m")])
    honest = replied(0, PRINT, 2 * state.tokens)
    assert session.replay(state, [honest]).scale.is_learnt
    usage = honest.usage.model_copy(update={"is_estimate": "estimated" in more})
    other = honest.model_copy(update={"attempts": more.get("attempts", 1), "usage": usage})
    assert not session.replay(state, [other]).scale.is_learnt


def test_a_fold_keeps_rules_question_newest_turn_and_alternating_roles() -> None:
    world = long_world(20)
    world.go(spec("How many?", "rlm", turns=30), limits=SMALL)
    for event, asked in zip(folds_of(world), after_folds(world), strict=True):
        system, question, *rest = asked.messages
        assert [message.role for message in asked.messages] == [
            "system",
            "user",
            "assistant",
            "user",
        ]
        assert system == world.asked[0].messages[0]
        assert question.content.startswith(world.asked[0].messages[1].content)
        assert event.text in question.content
        assert f'unfold("{event.original.hash}")' in question.content
        assert rest[0].content.startswith("turn ")


def test_only_the_newest_fold_is_told() -> None:
    world = long_world(20)
    world.go(spec("How many?", "rlm", turns=30), limits=SMALL)
    asked = after_folds(world)
    assert len(asked) > 1
    assert {one.messages[1].content.count("summary ") for one in asked} == {1}


def test_a_fold_asks_for_a_quarter_of_the_window() -> None:
    effects = [effect for effect in fold_effects() if isinstance(effect, Fold)]
    assert effects
    assert {effect.budget_tokens for effect in effects} == {SMALL.window_tokens // 4}


def test_every_original_leads_to_the_one_before() -> None:
    texts = [effect.text for effect in fold_effects() if isinstance(effect, Fold)]
    for one, two in pairwise(texts):
        assert f'unfold("{content_hash(one.encode())}")' in two
        assert folded(one, 1).text in two


def test_nothing_is_lost_by_folding() -> None:
    world = long_world(20)
    task = spec("?", "rlm", turns=30)
    world.go(task, limits=SMALL)
    state = session.replay(session.new_session(task, limits=SMALL), world.journal)
    said = [message.content for message in state.history if message.role == "assistant"]
    assert [text.partition(":")[0] for text in said[:-1]] == [f"turn {turn}" for turn in range(20)]


def test_what_a_fold_saved_is_noted() -> None:
    world = long_world(20)
    world.go(spec("?", "rlm", turns=30), limits=SMALL)
    assert any(note.startswith("folded 1") for note in world.notes)


def test_a_single_turn_too_long_for_the_window_is_asked_all_the_same() -> None:
    limits = session.SessionLimits(window_tokens=100)
    world = long_world(3)
    assert world.go(spec("?", "rlm"), limits=limits).answer == "42"


def test_a_journal_kept_under_a_wider_window_replays_under_a_narrow_one() -> None:
    world = long_world(20)
    task = spec("?", "rlm", turns=30)
    world.go(task, limits=LIMITS)
    state = session.replay(session.new_session(task, limits=SMALL), world.journal[:-1])
    assert session.outstanding(state) == (Finish("answered", "42", ""),)


def test_a_journal_kept_under_a_narrow_window_replays_under_a_wider_one() -> None:
    world = long_world(20)
    task = spec("?", "rlm", turns=30)
    world.go(task, limits=SMALL)
    state = session.replay(session.new_session(task, limits=LIMITS), world.journal[:-1])
    session.check(state)
    assert len(state.folds) == len(folds_of(world))
    assert session.outstanding(state) == (Finish("answered", "42", ""),)


def test_a_fold_nobody_asked_for_changes_nothing() -> None:
    task = spec("?", "rlm")
    state, _ = session.step(session.new_session(task, limits=LIMITS), Opened(mode="rlm", model="m"))
    assert session.step(state, folded("x", 1)) == (state, ())


def fold_effects() -> list[session.Effect]:
    world = long_world(20)
    task = spec("?", "rlm", turns=30)
    world.go(task, limits=SMALL)
    state = session.new_session(task, limits=SMALL)
    effects: list[session.Effect] = []
    for event in world.journal:
        state, new = session.step(state, event)
        effects += new
    return effects


def after_folds(world: World) -> list[session.AskModel]:
    """The questions that were asked right after a fold."""
    calls = [
        later.call
        for event, later in pairwise(world.journal)
        if isinstance(event, Folded) and isinstance(later, ModelReplied)
    ]
    return [asked for asked in world.asked if asked.call in calls]
