"""What cells ask beside models, seen on whole nodes under virtual time."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import pytest

from kowalski.node.backends.seam import CompletionRequest
from kowalski.node.repl.scripted_sessions import ScriptedCell, ScriptedState
from kowalski.node.repl.seam import CellOutcome, SubCall, SubCallResult
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.journal import Folded, SubCallAnswered
from kowalski.rlm.journal import event_of
from simulations.toy_cells import toy_script
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, LEADER, THINKER, WORKER, block

pytestmark = pytest.mark.trio


def of_kind(world: World, task: TaskId, kind: type) -> list:  # type: ignore[type-arg]
    entries = world[0].submitter.entries(task)
    return [event for event in map(event_of, entries) if isinstance(event, kind)]


def asks(*calls: SubCall) -> ScriptedCell:
    """A cell that shows what it was answered as JSON."""

    def outcome(results: tuple[SubCallResult, ...]) -> CellOutcome:
        told = json.dumps([[one.text, one.error, one.code] for one in results])
        return CellOutcome("ok", told.encode(), exit_code=0)

    return ScriptedCell(sub_calls=calls, outcome_of=outcome)


async def test_a_folded_window_is_unfolded_byte_for_byte_and_history_holds_all(
    virtual_time: JumpingClock,
) -> None:
    heard: list[tuple[SubCallResult, ...]] = []

    def script(code: str, state: ScriptedState) -> ScriptedCell:
        if "unfold" not in code:
            return toy_script(code, state)
        handle = code.split()[1]
        cell = asks(
            SubCall(handle, kind="unfold"),
            SubCall(f"{handle}:5", kind="unfold"),
            SubCall("no such", kind="unfold"),
            SubCall("", kind="history"),
        )

        def outcome(results: tuple[SubCallResult, ...]) -> CellOutcome:
            heard.append(results)
            return CellOutcome("ok", b"unfolded it", exit_code=0)

        return dataclasses.replace(cell, outcome_of=outcome)

    def tells(request: CompletionRequest) -> str:
        told = "\n".join(message.content for message in request.messages)
        if "unfolded it" in told:
            return block("answer found")
        if "In full: " in told:
            _, handle = told.split('In full: unfold("')
            return block(f"unfold {handle[:64]}")
        return block("flood 6000") + "x" * 2000

    model = dataclasses.replace(THINKER, tells=tells)
    worker = dataclasses.replace(WORKER, script=script)
    async with open_world([ASKER, LEADER, worker, model]) as world:
        task = world.submit(0, "q", mode="rlm", window_tokens=4000, max_iterations=30)
        result = await world.result(0, task)
        assert result.answer is not None
        assert result.answer.answer == "found", result.answer
        (folded, *_) = of_kind(world, task, Folded)
        original = (await world[1].store.read(folded.original)).decode()
        assert folded.tokens < folded.source_tokens
        whole, rest, unknown, history = heard[0]
        assert (whole.text, rest.text) == (original, original[5:])
        assert (unknown.text, unknown.code) == (None, "unknown")
        assert "You answer a question about data" in json.loads(history.text or "")[0]


async def test_what_nobody_answers_is_an_error_with_a_code(virtual_time: JumpingClock) -> None:
    def script(code: str, state: ScriptedState) -> ScriptedCell:
        return asks(SubCall("x", kind="dance"), SubCall("", kind="rlm"))  # type: ignore[arg-type]

    worker = dataclasses.replace(WORKER, script=script)
    async with open_world([ASKER, LEADER, worker, THINKER]) as world:
        task = world.submit(0, block("go"), mode="blocks", model="none")
        result = await world.result(0, task)
        assert result.answer is not None
        assert '"unsupported"' in result.answer.answer
        assert '"bad_request"' in result.answer.answer
        assert [one.code for one in of_kind(world, task, SubCallAnswered)] == ["bad_request"]


ADA = "The valve of pump 4711 was replaced by Ada on Monday. "
WIND = "Nobody says a word about the wind, and that is all there is to tell. "


def _finding(told: list[list[dict[str, object]]]) -> Callable[[str, ScriptedState], ScriptedCell]:
    """A cell `find QUESTION` keeps what it was answered in `told`."""

    def script(code: str, state: ScriptedState) -> ScriptedCell:
        if not code.startswith("find "):
            return toy_script(code, state)

        def outcome(results: tuple[SubCallResult, ...]) -> CellOutcome:
            told.append(json.loads(results[0].text or "[]"))
            return CellOutcome("ok", b"it was found", exit_code=0)

        cell = asks(SubCall(code.removeprefix("find ").strip(), kind="find"))
        return dataclasses.replace(cell, outcome_of=outcome)

    return script


def _searching(request: CompletionRequest) -> str:
    """Talks until it is folded, with a fact in its second reply, then looks for that."""
    said = "\n".join(message.content for message in request.messages)
    if "it was found" in said:
        return block("answer found")
    if "In full: " in said:
        return block("find who replaced the valves of the pump?")
    return block("flood 6000") + WIND * 20 + ADA + WIND * 20


@pytest.mark.parametrize("models", [("m",), ("m", "tiny-embed")])
async def test_a_cell_finds_the_fold_that_may_answer_its_question(
    virtual_time: JumpingClock, models: tuple[str, ...]
) -> None:
    told: list[list[dict[str, object]]] = []
    worker = dataclasses.replace(WORKER, script=_finding(told))
    model = dataclasses.replace(THINKER, tells=_searching, models=models)
    async with open_world([ASKER, LEADER, worker, model]) as world:
        task = world.submit(0, "q", mode="rlm", window_tokens=4000, max_iterations=30, model="m")
        result = await world.result(0, task)
        assert result.answer is not None
        assert result.answer.answer == "found", result.answer
        (folded, *_) = of_kind(world, task, Folded)
        (nearest, *_) = told[0]
        assert nearest["handle"] == folded.original.hash
        assert "replaced by Ada" in str(nearest["text"])
        (found,) = [one for one in of_kind(world, task, SubCallAnswered) if one.kind == "find"]
        # With vectors it is a call like another, in the journal and in the budget.
        assert found.model == (None if models == ("m",) else "tiny-embed")
        assert found.attempts == len(models) - 1
        assert (found.usage is not None) == (found.model is not None)


async def test_before_anything_was_folded_nothing_is_found_and_no_model_asked(
    virtual_time: JumpingClock,
) -> None:
    told: list[list[dict[str, object]]] = []
    worker = dataclasses.replace(WORKER, script=_finding(told))
    model = dataclasses.replace(THINKER, models=("m", "tiny-embed"))
    async with open_world([ASKER, LEADER, worker, model]) as world:
        task = world.submit(0, block("find anything"), mode="blocks", model="none")
        await world.result(0, task)
        assert told == [[]]
        (found,) = of_kind(world, task, SubCallAnswered)
        assert (found.model, found.attempts) == (None, 0)
