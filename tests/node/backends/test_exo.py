"""exo through its HTTP interface: what it can run, placing a model, and every way to fail at it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from kowalski.node.backends.exo import ExoBackend, list_exo
from kowalski.node.backends.openai_models import OpenAiServer
from kowalski.node.backends.probing import candidate, probe
from kowalski.node.backends.seam import BackendError, Fetched, ModelInfo, Placer
from tests.faulty_network import Asked, Fault, Recording, open_faulty
from tests.node.backends.asking import ask, estimate, question
from tests.scripted_exo import FAILED, GIB, IDLE, LOADING, MODEL, READY, Plan, ScriptedExo, preview

pytestmark = pytest.mark.trio

SERVER = OpenAiServer("exo", "http://h", "http://h/v1")
STATE: dict[str, Any] = json.loads(
    (Path(__file__).parent / "recordings" / "exo-state.json").read_text()
)
SMALL = ModelInfo(
    "mlx-community/Llama-3.2-1B-Instruct-4bit",
    131072,
    is_warm=True,
    size_bytes=729808896,
    capabilities=("chat", "tools"),
)


@pytest.mark.parametrize("has_paths", [True, False])
async def test_what_is_ready_can_be_run_whether_the_state_comes_in_pieces_or_whole(
    has_paths: bool,
) -> None:
    async def get(url: str) -> object:
        await trio.lowlevel.checkpoint()
        path = url.removeprefix("http://h")
        if path == "/state":
            return STATE
        if has_paths and path.startswith("/state/"):
            return STATE[path.removeprefix("/state/")]
        raise BackendError("model_missing", "HTTP 404")

    assert await list_exo(get, SERVER) == (SMALL,)


@asynccontextmanager
async def open_exo(exo: ScriptedExo) -> AsyncIterator[ExoBackend]:
    async with open_faulty(exo.give) as (_network, http):
        (finding,) = await probe([candidate("http://h")], http=http, estimate_tokens=estimate)
        assert finding.kind == "exo"
        assert isinstance(finding.backend, ExoBackend)
        assert isinstance(finding.backend, Placer)
        yield finding.backend


async def load(backend: ExoBackend, **more: Any) -> list[Fetched]:  # noqa: ANN401 options
    options = {"strategy": "auto", "devices_min": 1, **more}
    async with backend.load(MODEL, **options) as steps:
        return [step async for step in steps]


# --- it comes up --------------------------------------------------------------------------------


@pytest.mark.parametrize("has_state_paths", [True, False])
async def test_a_model_is_placed_as_chosen_watched_and_then_asked(
    has_state_paths: bool, autojump_clock: MockClock
) -> None:
    exo = ScriptedExo(has_state_paths=has_state_paths)
    async with open_exo(exo) as backend:
        assert await backend.list_models() == ()
        steps = await load(backend)
        (model,) = await backend.list_models()
    assert exo.commands == [
        (
            "POST /place_instance",
            {"model_id": MODEL, "sharding": "Pipeline", "instance_meta": "MlxRing", "min_nodes": 2},
        )
    ]
    assert steps[0].stage == "placing"
    assert "split by layers over 2 devices (pipeline)" in steps[0].detail
    assert "waiting for exo to place it" in [step.detail for step in steps]
    assert any("10.0 of 40.0 GiB downloaded" in step.detail for step in steps)
    assert (model.name, model.is_warm) == (MODEL, True)
    assert trio.current_time() < 10


async def test_the_owner_may_choose_tensor(autojump_clock: MockClock) -> None:
    exo = ScriptedExo()
    async with open_exo(exo) as backend:
        await load(backend, strategy="tensor")
    assert exo.commands[0][1]["sharding"] == "Tensor"


async def test_a_runner_that_fails_and_is_started_again_is_waited_for(
    autojump_clock: MockClock,
) -> None:
    states = ((0.0, (LOADING, FAILED)), (5.0, (LOADING, LOADING)), (9.0, (READY, READY)))
    async with open_exo(ScriptedExo(Plan(states=states))) as backend:
        await load(backend)
        assert len(await backend.list_models()) == 1


async def test_what_could_be_loaded_and_what_is_free_is_told() -> None:
    async with open_exo(ScriptedExo()) as backend:
        assert await backend.loadable() == (ModelInfo(MODEL, 131072),)
        assert await backend.free_bytes() == {"device-0": 64 * GIB, "device-1": 32 * GIB}


# --- it does not --------------------------------------------------------------------------------

CASES: dict[str, tuple[Plan, str, str, float]] = {
    "it says 200 and places nothing": (
        Plan(appears_after_s=float("inf")),
        "bad_reply",
        "exo accepted the command and placed nothing",
        25,
    ),
    "its runners fail": (
        Plan(states=((0.0, (FAILED, LOADING)),)),
        "bad_reply",
        "its runners failed: 1 Failed, 1 Loading: MemoryError: out of memory",
        25,
    ),
    "its runners hang": (
        Plan(states=((0.0, (LOADING, IDLE)),)),
        "bad_reply",
        "nothing moved for 300 s: 1 Loading, 1 Idle",
        320,
    ),
    "somebody takes it down": (
        Plan(states=((0.0, (LOADING, IDLE)),), removed_after_s=3),
        "bad_reply",
        "exo took the instance down",
        10,
    ),
    "exo dies": (
        Plan(states=((0.0, (LOADING, IDLE)),), dies_after_s=4),
        "unreachable",
        "exo went silent",
        60,
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_model_that_does_not_come_up_is_told_and_taken_down(
    case: str, autojump_clock: MockClock
) -> None:
    plan, code, words, within_s = CASES[case]
    exo = ScriptedExo(plan)
    async with open_exo(exo) as backend:
        with trio.fail_after(within_s), pytest.raises(BackendError) as caught:
            await load(backend)
    assert caught.value.code == code
    assert words in caught.value.detail
    deleted = [key for key, _ in exo.commands if key.startswith("DELETE")]
    was_there = case in ("its runners fail", "its runners hang")
    assert deleted == (["DELETE /instance/made"] if was_there else [])


async def test_a_model_that_fits_nowhere_is_refused_before_anything_is_done(
    autojump_clock: MockClock,
) -> None:
    exo = ScriptedExo(previews=(preview("Pipeline", "MlxRing", **{"device-0": 100}),))
    async with open_exo(exo) as backend:
        with pytest.raises(BackendError, match=r"rejected: .*100.0 GiB on a device with 64.0"):
            await load(backend)
        with pytest.raises(BackendError, match="rejected: exo offers no tensor way"):
            await load(backend, strategy="tensor")
    assert exo.commands == []


async def test_who_leaves_takes_down_what_was_half_up(autojump_clock: MockClock) -> None:
    exo = ScriptedExo(Plan(states=((0.0, (LOADING, IDLE)),)))
    async with open_exo(exo) as backend:
        with trio.move_on_after(8):
            await load(backend)
    assert [key for key, _ in exo.commands] == ["POST /place_instance", "DELETE /instance/made"]


async def test_all_instances_of_a_model_are_taken_down(autojump_clock: MockClock) -> None:
    exo = ScriptedExo()
    async with open_exo(exo) as backend:
        await load(backend)
        await backend.unload(MODEL)
        assert exo.commands[-1][0] == "DELETE /instance/made"
        with pytest.raises(BackendError, match="model_missing"):
            await backend.unload(MODEL)


async def test_a_model_that_exo_does_not_know_has_no_way() -> None:
    async with open_exo(ScriptedExo()) as backend:
        chosen = await backend.choose("other", "auto")
        assert (chosen.way, chosen.why) == (None, "exo knows no way to split this model")


# --- answers that nobody gives any more ---------------------------------------------------------

WORD = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
END = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
ANSWER = Recording("HTTP/1.1 200 OK\nContent-Type: text/event-stream", WORD * 200 + END)
AFTER_THE_STATE = 8000
"""Bytes: a fault there strikes the answer, which is longer, and no part of the state."""


async def ask_exo(plan: Plan, fault: Fault) -> tuple[str, float]:
    """What came of an answer on which the fault falls, and after how long."""
    exo = ScriptedExo(plan, placed_at=trio.current_time())

    def give(asked: Asked) -> Recording | bytes | None:
        return ANSWER if asked.path == "/v1/chat/completions" else exo.give(asked)

    async with open_faulty(give, fault) as (_network, http):
        backend = ExoBackend(SERVER, http=http, estimate_tokens=estimate, list_by=list_exo)
        began = trio.current_time()
        try:
            events = await ask(backend, question(model=MODEL), idle_timeout_s=60)
        except BackendError as error:
            return f"{error.code}: {error.detail}", trio.current_time() - began
        return f"{len(events)} events", trio.current_time() - began


ALIVE = ((0.0, (READY, READY)),)
LOST: dict[str, tuple[Plan, str, float]] = {
    "the master was lost, and with it the instance": (
        Plan(0.0, ALIVE, removed_after_s=1.0),
        "bad_reply: exo has lost its instance of mlx-community/",
        4.0,
    ),
    "a runner died, and stays so": (
        Plan(0.0, (*ALIVE, (1.0, (FAILED, READY)))),
        "bad_reply: its runners failed: 1 Failed, 1 Ready: MemoryError",
        4.0,
    ),
    "exo itself died, and its connection stays": (
        Plan(0.0, ALIVE, dies_after_s=1.0),
        "unreachable: exo went silent",
        10.0,
    ),
    "it hangs, and says that all is well": (Plan(0.0, ALIVE), "stalled: no progress for 20 s", 21),
}


@pytest.mark.parametrize("case", LOST)
async def test_an_answer_that_will_not_go_on_fails_in_seconds(
    case: str, autojump_clock: MockClock
) -> None:
    plan, words, within_s = LOST[case]
    told, took_s = await ask_exo(plan, Fault("stall", AFTER_THE_STATE))
    assert told.startswith(words)
    assert took_s <= within_s


async def test_an_answer_that_pauses_while_all_is_well_is_whole(autojump_clock: MockClock) -> None:
    told, took_s = await ask_exo(Plan(0.0, ALIVE), Fault("delay", AFTER_THE_STATE))
    assert (told, took_s) == ("201 events", 5.0)
