from __future__ import annotations

from dataclasses import replace

import pytest

from kowalski.protocol.messages.base import LINE_CHARS_MAX
from kowalski.protocol.messages.journal import BudgetSpent, Opened
from kowalski.rlm import endings, session
from kowalski.rlm.session_state import Finish, Finished, Session
from tests.kowalski.rlm.session_world import LIMITS, finished, spec

BLOCKS = "```python\na\n```\n\n```js\nb\n```\n"


def opened(mode: str, *, answer: str = "", turns: int = 0) -> Session:
    fresh = session.new_session(spec(BLOCKS), limits=LIMITS)
    state = session.replay(fresh, [Opened.model_validate({"mode": mode, "model": "m"})])
    return replace(state, answer=answer, turns=turns)


def finish_of(state: Session) -> Finish:
    assert isinstance(state.stage, Finished)
    return state.stage.finish


def test_a_detail_is_a_line() -> None:
    finish = finish_of(endings.failed(opened("rlm"), "code", "x" * 5000))
    assert len(finish.detail) == LINE_CHARS_MAX


@pytest.mark.parametrize(
    ("mode", "answer", "outcome", "detail"),
    [
        ("direct", "", "failed", "calls: a limit of the task was reached"),
        ("rlm", " \n", "failed", "calls: a limit of the task was reached"),
        ("rlm", "7", "answered", "unready: calls: a limit of the task was reached"),
    ],
)
def test_a_spent_budget_ends_with_what_there_is(
    mode: str, answer: str, outcome: str, detail: str
) -> None:
    state = opened(mode, answer=answer)
    finish = finish_of(endings.out_of_budget(state, BudgetSpent(limit="calls")))
    assert finish == Finish(outcome, answer, detail)  # type: ignore[arg-type]


def test_a_budget_spent_before_the_model_saw_the_outputs_leaves_them_unrefined() -> None:
    state = session.replay(opened("blocks"), [finished(0, "A"), finished(1, "B")])
    finish = finish_of(endings.out_of_budget(state, BudgetSpent(limit="timeout", detail="60 s")))
    assert finish.outcome == "answered"
    assert finish.answer.endswith("B\n```\n\n(No model refined this: timeout: 60 s.)\n")
    assert finish.detail == "unrefined: timeout: 60 s"


def test_a_draft_that_a_model_wrote_is_unfinished() -> None:
    state = opened("blocks", answer="draft", turns=1)
    finish = finish_of(endings.unrefined(state, "enough"))
    assert finish == Finish("answered", "draft", "unfinished: enough")


def test_what_is_partial_while_blocks_run_is_the_text_with_outputs_so_far() -> None:
    state = session.replay(opened("blocks"), [finished(1, "B")])
    assert endings.partial(state) == f"{BLOCKS}```output\nB\n```\n"
