"""Onlookers see what happens from when they look; one that reads nothing is let go."""

from __future__ import annotations

import pytest
import trio

from kowalski.node.core.task_ledger import Task
from kowalski.node.services.onlookers import WATCHED_MAX, Onlookers, Seen
from kowalski.protocol.ids import TaskId
from tests.node.core.ledger_world import spec

pytestmark = pytest.mark.trio

TASK = Task(TaskId("t"), spec(), submitted_unix_s=0)


async def test_each_sees_what_is_shown_of_its_task_and_of_no_other() -> None:
    onlookers = Onlookers()
    with onlookers.watch(TASK.id) as one, onlookers.watch(TaskId("other")) as other:
        onlookers.show(Seen(TASK))
        assert one.receive_nowait() == Seen(TASK)
        with pytest.raises(trio.WouldBlock):
            other.receive_nowait()


async def test_one_that_reads_nothing_is_let_go_and_may_look_again() -> None:
    onlookers = Onlookers()
    with onlookers.watch(TASK.id) as slow:
        for _ in range(WATCHED_MAX + 1):
            onlookers.show(Seen(TASK))
        assert len([seen async for seen in slow]) == WATCHED_MAX
    with onlookers.watch(TASK.id) as again:
        onlookers.show(Seen(TASK))
        assert again.receive_nowait() == Seen(TASK)
