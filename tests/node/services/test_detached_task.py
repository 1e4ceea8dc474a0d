"""A detached task as one member keeps it, beside what `test_detached` shows of the whole group."""

from __future__ import annotations

import pytest

from kowalski.node.services.detached_task import PROTOCOL, read_delegation
from kowalski.protocol.codec import encode
from kowalski.protocol.errors import RemoteProtocolError, RequestRefusedError
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.detached import Delegated, DelegationKept, VoteAsked, VoteGiven
from kowalski.protocol.messages.watching import CancelAsked, ResumeAsked
from simulations.virtual_time import JumpingClock
from simulations.world import open_world
from tests.node.services.prompts import ASKER, LEADER, WORKER, block
from tests.node.test_verbs import ask
from tests.protocol.examples import DELEGATION

GROUP = DELEGATION.group

REQUEST = {"prompt": block("wait 5\nsay hi"), "mode": "blocks", "task_id": "t", "detach": True}


def test_what_is_signed_is_read_back_and_nothing_else_passes_for_it() -> None:
    assert read_delegation(Delegated(frame=encode(DELEGATION), signature=bytes(64))) == DELEGATION
    other = encode(VoteGiven(task=DELEGATION.task, term=1, is_granted=True))
    with pytest.raises(RemoteProtocolError, match="vote-given"):
        read_delegation(Delegated(frame=other, signature=bytes(64)))


@pytest.mark.parametrize("group", [(), GROUP[:2], (*GROUP[:2], GROUP[0]), (*GROUP, GROUP[0])])
def test_a_group_is_three_different_peers(group: tuple[PeerId, ...]) -> None:
    frame = encode(DELEGATION.model_copy(update={"group": group}))
    with pytest.raises(RemoteProtocolError, match="3 different"):
        read_delegation(Delegated(frame=frame, signature=bytes(64)))


@pytest.mark.trio
async def test_nobody_heeds_a_peer_that_does_not_keep_the_task(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, LEADER, LEADER, WORKER]) as world:
        await ask(world, "submit", **REQUEST)
        (kept,) = world[1].submitting.detached.held(TaskId("t"))
        asked = VoteAsked(task=kept.key[1], submitter=kept.key[0], term=99, confirmed=9, entries=9)
        with pytest.raises(RequestRefusedError, match="not_allowed"):
            await world[0].mesh.request(world.peer(1), PROTOCOL, asked, VoteGiven, timeout_s=5)
        assert kept.member.term < 99
        cancel = CancelAsked(task=kept.key[1], submitter=kept.key[0])
        for wish in (cancel, ResumeAsked(task=kept.key[1], submitter=kept.key[0])):
            with pytest.raises(RequestRefusedError, match="not_allowed"):
                await world[4].mesh.request(
                    world.peer(1), PROTOCOL, wish, DelegationKept, timeout_s=5
                )
        assert any("kept by node-" in line for line in kept.trace())
