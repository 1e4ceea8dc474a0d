"""What a node of a world is made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from kowalski.mesh.membership_certificates import MeshRoot
from kowalski.node.backends.seam import CompletionRequest
from kowalski.node.repl.scripted_sessions import ScriptedState
from kowalski.protocol.messages.inference import ChatMessage
from simulations.places import Part, as_said, echo, improvising, make_place, terse
from simulations.virtual_time import JumpingClock
from simulations.world import open_world

ROOT = MeshRoot(bytes(32))
STATE = ScriptedState("python", {}, 0, ())


def asked(text: str) -> CompletionRequest:
    return CompletionRequest("m", (ChatMessage(role="user", content=text),))


def test_a_seed_and_a_number_make_one_identity(tmp_path: Path) -> None:
    def peer(number: int, seed: int) -> str:
        return make_place(number, Part(), ROOT, tmp_path, seed=seed).identity.peer

    assert peer(0, 1) == peer(0, 1)
    assert len({peer(0, 1), peer(1, 1), peer(0, 2)}) == 3


def test_cells_are_noted_and_take_as_long_as_the_place_is_slow(tmp_path: Path) -> None:
    place = make_place(0, Part(slowness=10.0), ROOT, tmp_path, seed=1)
    told: list[str] = []
    place.on_cell.append(lambda code, _state: told.append(code))
    assert place.script("wait 2", STATE).duration_s == 20.0
    assert place.cells == told == ["wait 2"]


def test_a_terse_model_says_the_same_in_few_tokens() -> None:
    text = " ".join(f"word{number}" for number in range(60))
    reply = terse(asked(text))
    assert len(reply.split()) == 3
    assert as_said(text) in as_said(reply)
    assert as_said(echo(asked(text))) == as_said(reply)


@pytest.mark.trio
async def test_a_model_that_improvises_writes_other_cells_at_another_time(
    virtual_time: JumpingClock,
) -> None:
    first = improvising(asked("Question:\nimprovise 7\n\nData"))
    await trio.sleep(1)
    again = improvising(asked("Question:\nimprovise 7\n\nData"))
    assert first != again
    assert "keep x" in first
    assert "keep x" in again
    assert improvising(asked("anything else")) == terse(asked("anything else"))


@pytest.mark.trio
async def test_a_model_that_improvises_goes_on_with_a_reply_that_broke_off(
    virtual_time: JumpingClock,
) -> None:
    question = asked("improvise 7")
    whole = improvising(question)
    await trio.sleep(1)
    assert improvising(replace(question, so_far=whole[: whole.index("\nwait")])) == whole
    assert improvising(replace(question, so_far="```python\nkeep")) != whole


@pytest.mark.trio
async def test_sessions_can_be_killed(virtual_time: JumpingClock) -> None:
    async with open_world([Part()]) as world:
        hands = world.places[0].hands
        assert hands is not None
        assert hands.host is not None
        await hands.host.open("python", {}, 0)
        await world.places[0].kill_sessions()
        assert hands.host.slots_free == hands.host.slots
