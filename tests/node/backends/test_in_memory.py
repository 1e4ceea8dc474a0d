"""The backend without a server keeps the promises of the seam."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from kowalski.node.backends.in_memory import InMemoryBackend
from kowalski.node.backends.seam import Backend, BackendError, Completed, Delta
from tests.node.backends.asking import ask, ask_in_vain, question


@pytest.mark.trio
async def test_it_answers_word_by_word_up_to_the_limit() -> None:
    backend: Backend = InMemoryBackend(lambda request: request.messages[0].content + " again")
    events = await ask(backend, question("one two", model="in-memory"))
    assert events == [Delta("one"), Delta(" two"), Delta(" again"), Completed("stop", 2, 3, False)]
    events = await ask(backend, question("one two", model="in-memory", max_tokens=1))
    assert events == [Delta("one"), Completed("length", 2, 1, False)]


@pytest.mark.trio
async def test_it_fails_as_long_as_it_is_told_to() -> None:
    backend = InMemoryBackend(lambda _: "x")
    assert (await ask_in_vain(backend, question(model="other"))).code == "model_missing"
    backend.failure = BackendError("unreachable")
    assert await ask_in_vain(backend, question(model="in-memory")) is backend.failure
    with pytest.raises(BackendError):
        await backend.list_models()


@pytest.mark.trio
async def test_it_stalls_and_can_be_left_in_the_middle(autojump_clock: MockClock) -> None:
    backend = InMemoryBackend(lambda _: "x y z", delay_per_token_s=5)
    asked = question(model="in-memory")
    assert (await ask_in_vain(backend, asked, idle_timeout_s=1)).code == "stalled"
    assert trio.current_time() == 1
    async with backend.complete(asked, idle_timeout_s=10) as stream:
        assert await anext(stream) == Delta("x")
        assert backend.in_flight == 1
    assert backend.in_flight == 0
