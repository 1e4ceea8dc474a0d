"""Replies that are neither code nor answer; the plain ones are in `test_session_rlm`."""

from __future__ import annotations

from kowalski.protocol.messages.journal import ModelFailed, ModelReplied, Opened
from kowalski.rlm import session
from kowalski.rlm.session import Finish
from tests.kowalski.rlm.session_world import LIMITS, World, replied, spec


def opened() -> session.Session:
    fresh = session.new_session(spec("?", "direct"), limits=LIMITS)
    return session.step(fresh, Opened(mode="direct", model="m"))[0]


def test_a_reply_to_another_question_changes_nothing() -> None:
    state = opened()
    assert session.step(state, replied(1, "42")) == (state, ())
    assert session.step(state, ModelFailed(call=1, code="x", detail="")) == (state, ())


def test_thoughts_before_a_reply_are_no_part_of_it() -> None:
    _, effects = session.step(opened(), replied(0, "<think>41?</think>\n42"))
    assert effects == (Finish("answered", "42", ""),)


def test_what_models_were_asked_is_counted_also_for_a_question_nobody_answered() -> None:
    failed = ModelFailed(call=0, code="peers_failed", detail="all gone", attempts=3)
    state, effects = session.step(opened(), failed)
    assert effects == (Finish("failed", "", "peers_failed: all gone"),)
    assert (state.spent.calls, state.spent.attempts) == (1, 3)


def test_attempts_and_time_are_taken_from_the_journal() -> None:
    reply = replied(0, "42").model_copy(update={"attempts": 2, "duration_s": 1.5})
    assert isinstance(reply, ModelReplied)
    state, _ = session.step(opened(), reply)
    assert (state.spent.attempts, state.spent.seconds) == (2, 1.5)


def test_a_long_reply_is_cut_in_the_window_and_whole_as_an_answer() -> None:
    limits = session.SessionLimits(reply_chars=1000)
    world = World(("x" * 5000,))
    assert world.go(spec("?", "direct"), limits=limits).answer == "x" * 5000
