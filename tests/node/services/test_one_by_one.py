"""Many questions in one request, asked over frames of a room whose model is a function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kowalski.node.backends.in_memory import InMemoryBackend
from kowalski.node.backends.seam import BackendError, BackendErrorCode, CompletionRequest
from kowalski.node.services.inference import PROTOCOL
from kowalski.node.services.one_by_one import MOMENT_S
from kowalski.protocol.errors import RequestFailedError, RequestRefusedError
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages import inference as wire
from simulations.virtual_time import JumpingClock
from tests.node.services.rooms import PatientClock
from tests.node.services.test_inference import MODEL, Desk, echo, open_desk

pytestmark = pytest.mark.trio


@pytest.fixture
def virtual_time() -> JumpingClock:
    return PatientClock()


def asked(*prompts: str, **more: Any) -> wire.CompletionsAsked:  # noqa: ANN401 fields
    return wire.CompletionsAsked(model="m", prompts=prompts, remaining_s=30.0, **more)


async def ask(desk: Desk, request: wire.CompletionsAsked) -> tuple[list[wire.CompletionsTold], Any]:
    """What was told, and the end."""
    told: list[wire.CompletionsTold] = []
    async with desk.two.asking.asker.converse(desk.two.room.peer, PROTOCOL, request) as talk:
        try:
            while isinstance(message := await talk.receive(), wire.CompletionsTold):
                told.append(message)
        except (RequestFailedError, RequestRefusedError) as no:
            return told, no
    return told, message


def answers(told: list[wire.CompletionsTold]) -> list[wire.OneCompletion]:
    return [answer for message in told for answer in message.answers]


async def test_each_is_answered_in_order_and_all_are_counted(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path, InMemoryBackend(echo, models=(MODEL,))) as desk:
        told, done = await ask(desk, asked(*(f"q {n}" for n in range(20))))
        found = answers(told)
        assert [one.slot for one in found] == list(range(20))
        assert [one.text for one in found] == [f"you said q {n}" for n in range(20)]
        assert isinstance(done, wire.CompletionsDone)
        assert (done.answered, done.model) == (20, "m")
        tokens = sum(one.usage.completion_tokens for one in found if one.usage is not None)
        assert done.usage.completion_tokens == tokens > 0
        assert len(told) < 20, "those of a moment are told together"


async def test_an_answer_does_not_wait_longer_than_a_moment_for_the_next(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    slow = InMemoryBackend(echo, models=(MODEL,), delay_per_token_s=MOMENT_S)
    async with open_desk(tmp_path, slow) as desk:
        told, _ = await ask(desk, asked("one", "two", "three"))
        assert [len(message.answers) for message in told] == [1, 1, 1]


async def test_what_is_too_long_fails_in_its_slot_alone(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    def tells(request: CompletionRequest) -> str:
        return "x" * 400_000 if request.messages[-1].content == "long" else "short"

    async with open_desk(tmp_path, InMemoryBackend(tells, models=(MODEL,))) as desk:
        told, done = await ask(desk, asked("a", "long", "b"))
        assert [(one.text, one.code) for one in answers(told)] == [
            ("short", None),
            (None, "too_long"),
            ("short", None),
        ]
        assert isinstance(done, wire.CompletionsDone)


@pytest.mark.parametrize(
    ("code", "error"),
    [("unreachable", RequestFailedError), ("overloaded", RequestRefusedError)],
)
async def test_a_server_that_goes_ends_it_after_what_was_answered(
    virtual_time: JumpingClock, tmp_path: Path, code: BackendErrorCode, error: type[Exception]
) -> None:
    def tells(request: CompletionRequest) -> str:
        if request.messages[-1].content == "c":
            raise BackendError(code, "gone")
        return "fine"

    async with open_desk(tmp_path, InMemoryBackend(tells, models=(MODEL,))) as desk:
        told, no = await ask(desk, asked("a", "b", "c", "d"))
        assert [one.text for one in answers(told)] == ["fine", "fine"]
        assert isinstance(no, error)


async def test_no_prompts_are_a_bad_request_and_an_old_term_is_stale(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path, InMemoryBackend(echo, models=(MODEL,))) as desk:
        _, no = await ask(desk, asked())
        assert isinstance(no, RequestFailedError)
        assert no.code == "bad_request"
        task = TaskId("t")
        await ask(desk, asked("x", task=task, term=2))
        _, stale = await ask(desk, asked("x", task=task, term=1))
        assert isinstance(stale, RequestRefusedError)
        assert stale.reason == "stale"
