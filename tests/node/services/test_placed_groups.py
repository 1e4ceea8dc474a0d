"""A group of questions and the peers that it is lost with, on whole nodes under virtual time."""

from __future__ import annotations

import dataclasses

import pytest

from kowalski.node.backends.seam import CompletionRequest
from simulations.virtual_time import JumpingClock
from simulations.world import open_world
from tests.node.services.prompts import ASKER, LEADER, THINKER, block
from tests.node.services.test_grouped_questions import ONLY_CODE, answered_calls

pytestmark = pytest.mark.trio


async def test_what_is_lost_with_a_peer_is_asked_elsewhere_and_nothing_twice(
    virtual_time: JumpingClock,
) -> None:
    heard = 0

    def tells(request: CompletionRequest) -> str:
        nonlocal heard
        heard += 1
        if heard == 150:
            world.halt(3)
        return "fine"

    model = dataclasses.replace(THINKER, tells=tells, delay_per_token_s=0.002)
    async with open_world([ASKER, LEADER, ONLY_CODE, model, model]) as world:
        task = world.submit(0, block("ask-many 300 q"), mode="blocks", model="none")
        await world.result(0, task)
        calls = answered_calls(world, task)
        assert sorted(one.ordinal for one in calls) == list(range(300))
        assert [one.error for one in calls] == [None] * 300
        # The dead peer was answering in each of its slots, and had a moment's answers untold.
        assert len(world.calls) < 300 + 150
