"""What a device can do, in how many slots."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio

from kowalski.node.backends.catalogue import open_catalogue
from kowalski.node.backends.in_memory import InMemoryBackend
from kowalski.node.backends.probing import Candidate, Finding
from kowalski.node.backends.seam import ModelInfo
from kowalski.node.core.job import Job, Speeds
from kowalski.node.repl.scripted_sessions import open_scripted_host
from kowalski.node.services.own_capacity import OwnCapacity
from kowalski.protocol.messages.trust import Role
from simulations.toy_cells import toy_script
from simulations.virtual_time import JumpingClock

pytestmark = pytest.mark.trio

ALL: frozenset[Role] = frozenset({"repl", "infer", "fold"})
PYTHON, FOLD = Job("code", language="python"), Job("folding")


@pytest.fixture
def virtual_time() -> JumpingClock:
    return JumpingClock()


@asynccontextmanager
async def open_capacity(
    roles: frozenset[Role] = ALL, *, with_host: bool = True, cold: str | None = None
) -> AsyncIterator[OwnCapacity]:
    models = (
        ModelInfo("llama3.2:3b", is_warm=True, slots=4),
        ModelInfo("qwen3:8b", is_warm=True, slots=2),
        *([ModelInfo(cold)] if cold else []),
    )
    backend = InMemoryBackend(lambda _asked: "", models=models, url="memory://")

    async def look(wanted: Sequence[Candidate]) -> tuple[Finding, ...]:
        await trio.lowlevel.checkpoint()
        return tuple(Finding(one.url, True, "openai", backend) for one in wanted)

    places = (Candidate("memory://", "memory://"),)
    async with (
        open_catalogue(places, look) as catalogue,
        open_scripted_host(toy_script, slots=8) as host,
    ):
        yield OwnCapacity(roles, host if with_host else None, catalogue, 3, 2)


async def test_slots_are_those_of_the_owner_the_model_and_the_folder(
    virtual_time: JumpingClock,
) -> None:
    async with open_capacity() as own:
        assert own.slots(PYTHON) == 3
        assert own.slots(Job("inference", model="qwen3:8b")) == 2
        assert own.slots(Job("inference", model="llama3.2")) == 4
        assert own.slots(Job("inference", model="*")) == 6
        assert own.slots(FOLD) == 2


async def test_what_can_be_done_has_no_reason_against_it(virtual_time: JumpingClock) -> None:
    async with open_capacity() as own:
        models = [Job("inference", model=name) for name in ("qwen3:8b", "llama3.2", "*", None)]
        assert [own.why_not(job) for job in (PYTHON, FOLD, *models)] == [""] * 6


async def test_what_cannot_be_done_is_said(virtual_time: JumpingClock) -> None:
    async with open_capacity() as own:
        assert own.why_not(Job("code", language="cobol")) == "no cobol here"
        assert own.why_not(Job("inference", model="gpt")) == "no model gpt here"
    async with open_capacity(frozenset()) as own:
        jobs = (PYTHON, Job("inference", model="qwen3:8b"), FOLD)
        assert all(own.why_not(job) for job in jobs)
    async with open_capacity(with_host=False) as own:
        assert own.why_not(PYTHON)
        assert own.slots(PYTHON) == 0


async def test_a_model_that_served_nothing_has_no_speed_yet(virtual_time: JumpingClock) -> None:
    async with open_capacity() as own:
        assert own.speeds("qwen3:8b") == Speeds()


async def test_a_model_that_is_not_loaded_costs_its_loading(virtual_time: JumpingClock) -> None:
    async with open_capacity(cold="phi4") as own:
        assert own.speeds("phi4").load_s >= 2
        assert own.speeds("qwen3:8b").load_s == 0
