"""A session whose older turns a model folds, on whole nodes under virtual time."""

from __future__ import annotations

import dataclasses

import pytest

from kowalski.node.backends.seam import CompletionRequest
from kowalski.protocol.messages.journal import Folded, SessionEvent
from kowalski.protocol.messages.task import Asking, Budget
from kowalski.rlm.budget import NOTHING, added
from simulations.virtual_time import JumpingClock
from simulations.world import open_world
from tests.node.services.prompts import ASKER, LEADER, THINKER, WORKER, block
from tests.node.services.test_session_hands import events

pytestmark = pytest.mark.trio

LINES = "; ".join(f"reading_{n} is {n * 13 + 100}" for n in range(150))
ASKED_TO_SHORTEN = "Shorten this text"


class Talker:
    """Fills its window turn by turn, summarises when asked to, and answers at the fifth turn."""

    def __init__(self) -> None:
        self.turns = 0
        self.folds = 0

    def __call__(self, request: CompletionRequest) -> str:
        if request.messages[-1].content.startswith(ASKED_TO_SHORTEN):
            self.folds += 1
            return "reading_7 is 191. The reading_x9 was 4. More readings follow."
        self.turns += 1
        if self.turns >= 5:
            return block("answer done")
        return f"{LINES} turn_{self.turns}\n{block('say ' + LINES)}"


@pytest.mark.parametrize("calls", [None, 6])
async def test_a_model_folds_the_window_out_of_the_tasks_budget(
    virtual_time: JumpingClock, calls: int | None
) -> None:
    talker = Talker()
    model = dataclasses.replace(THINKER, tells=talker)
    async with open_world([ASKER, LEADER, WORKER, model]) as world:
        task = world.submit(
            0,
            "read them",
            mode="rlm",
            window_tokens=6000,
            asking=Asking(fold_model="m"),
            budget=Budget(calls=calls),
        )
        result = await world.result(0, task)
        folds = [event for event in events(world, 0, task) if isinstance(event, Folded)]
        assert folds
        assert sum(fold.calls for fold in folds) == talker.folds > 0
        assert all(fold.usage and fold.attempts == fold.calls for fold in folds)
        assert "reading_7 is 191." in folds[0].text
        assert "reading_x9" not in folds[0].text
        spent = NOTHING
        for event in events(world, 0, task):
            assert isinstance(event, SessionEvent)
            spent = added(spent, event)
        assert (spent.calls, spent.folds) == (len(world.calls), len(folds))
        assert result.answer is not None
        if calls is None:
            assert result.answer.answer == "done"
        else:
            assert len(world.calls) <= calls
