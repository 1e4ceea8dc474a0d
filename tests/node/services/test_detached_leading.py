"""The leader of a detached task and its own coordinator."""

from __future__ import annotations

import pytest

from kowalski.node.services.detached_leading import ends
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.task import Entry
from kowalski.rlm.journal import GENESIS
from simulations.virtual_time import JumpingClock
from simulations.world import open_world
from tests.node.core.ledger_world import OPENED, Coordinator, closed
from tests.node.services.prompts import ASKER, LEADER, WORKER, block
from tests.node.test_verbs import ask


def test_only_the_entry_that_closes_a_task_ends_it() -> None:
    leading = Coordinator(TaskId("t"), 1, PeerId("12D3KooWsomebody"), 0, GENESIS)
    entries: list[Entry] = [leading.write(OPENED), leading.write(closed())]
    assert not ends([])
    assert not ends(entries[:1])
    assert ends(entries)


@pytest.mark.trio
async def test_its_coordinator_ends_where_its_leader_is_cut_off_though_its_submitter_is_there(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, LEADER, LEADER, WORKER]) as world:
        request = {"prompt": block("wait 500\nsay hi"), "mode": "blocks", "task_id": "t"}
        await ask(world, "submit", **request, detach=True)
        await world.until(lambda: len(world.cells) == 1)
        rooms = {number: world[number].submitting.detached for number in (1, 2, 3)}
        kept = {number: room.held(TaskId("t"))[0] for number, room in rooms.items()}
        (first,) = (number for number, one in kept.items() if one.member.role == "leader")
        for other in kept.keys() - {first}:
            world.cut(first, other)
        await world.until(lambda: kept[first].member.role != "leader", within_s=10)
        leading = world[first].leading
        assert leading is not None
        await world.until(lambda: not leading.coordinator.leading, within_s=90)
