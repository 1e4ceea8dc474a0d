"""What a session is told when it opens: texts of its inputs, and what the mesh can do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import trio

from kowalski.mesh.conversation import Conversation
from kowalski.mesh.mesh import CONTENT_PROTOCOL
from kowalski.node.backends.seam import ModelInfo
from kowalski.node.services import session_inputs
from kowalski.node.services.session_inputs import (
    HEAD_BYTES,
    WHOLE_BYTES_MAX,
    WINDOW_TOKENS_DEFAULT,
    cell_inputs,
    gather,
    languages,
    models,
)
from kowalski.protocol.errors import PeerUnreachableError
from kowalski.protocol.ids import ContentHash
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.content import ContentAsked, ContentRef
from kowalski.protocol.messages.repl import Input
from kowalski.protocol.messages.task import TaskSpec
from kowalski.rlm.session import InputText, SessionLimits, limits_for
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, LEADER, THINKER, WORKER
from tests.node.services.rooms import PatientClock

pytestmark = pytest.mark.trio


@pytest.fixture
def virtual_time() -> JumpingClock:
    return PatientClock()


def spec(*inputs: Input, model: str | None = None) -> TaskSpec:
    return TaskSpec(
        prompt="what is in it?", model=model, inputs=inputs, max_iterations=5, timeout_s=60.0
    )


async def given(world: World, number: int, name: str, data: bytes) -> Input:
    """An input that one node holds."""
    return Input(name=name, content=await world[number].store.put(data))


async def outset(world: World, task: TaskSpec, number: int = 1) -> session_inputs.Outset:
    """As the leader gathers it."""
    return await gather(task, world[number].store, world[number].mesh)


class Counted:
    """Serves a node's content and keeps what was asked of it."""

    def __init__(self, world: World, number: int) -> None:
        self.asked: list[ContentAsked] = []
        self._store = world[number].store
        world[number].mesh.serve(CONTENT_PROTOCOL, self._answer)

    async def _answer(self, conversation: Conversation, request: Message) -> Message:
        assert isinstance(request, ContentAsked)
        self.asked.append(request)
        return await self._store.answer(conversation, request)


# --- inputs -------------------------------------------------------------------------------------


async def test_small_inputs_are_read_whole_and_large_ones_at_their_beginning(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER]) as world:
        small = await given(world, 0, "small.txt", b"a line\n")
        large = await given(world, 0, "large.txt", bytes(range(97, 122)) * 40_000)
        served = Counted(world, 0)
        told = await outset(world, spec(small, large))
        assert told.texts == (
            InputText("small.txt", "a line\n", is_whole=True),
            InputText("large.txt", (bytes(range(97, 122)) * 200)[:HEAD_BYTES].decode(), False),
        )
        wanted = [(ask.hash, ask.offset, ask.bytes_max) for ask in served.asked]
        assert wanted == [(small.content.hash, 0, 7), (large.content.hash, 0, HEAD_BYTES)]
        assert world[1].store.path(large.content.hash) is None, "of the large one only the head"


async def test_inputs_are_whole_as_long_as_all_of_them_together_are_small(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER]) as world:
        half = await given(world, 0, "half", b"x" * (WHOLE_BYTES_MAX // 2))
        more = await given(world, 0, "more", b"y" * (WHOLE_BYTES_MAX // 2 + 1))
        rest = await given(world, 0, "rest", b"z" * (WHOLE_BYTES_MAX // 2))
        told = await outset(world, spec(half, more, rest))
        assert [(one.name, one.is_whole, len(one.text)) for one in told.texts] == [
            ("half", True, WHOLE_BYTES_MAX // 2),
            ("more", False, HEAD_BYTES),
            ("rest", True, WHOLE_BYTES_MAX // 2),
        ]


async def test_a_large_input_that_is_here_already_is_read_from_the_disk(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER]) as world:
        large = await given(world, 0, "large", b"x" * (WHOLE_BYTES_MAX + 1))
        await world[1].store.fetch(large.content, world[1].mesh)
        await world.kill(0)
        (text,) = (await outset(world, spec(large))).texts
        assert text == InputText("large", "x" * HEAD_BYTES, is_whole=False)


async def test_bytes_that_are_no_text_do_not_end_a_task(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER]) as world:
        image = await given(world, 0, "image", b"\x89PNG\r\n")
        (text,) = (await outset(world, spec(image))).texts
        assert text.text == "\ufffdPNG\r\n"


@pytest.mark.parametrize("size", [100, WHOLE_BYTES_MAX + 1])
async def test_another_holder_is_asked_when_one_is_lost_and_nobody_is_an_error(
    virtual_time: JumpingClock, size: int
) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        data = b"x" * size
        one = (await given(world, 0, "it", data)).content
        await world[2].store.put(data)
        both = Input(
            name="it",
            content=ContentRef(
                hash=one.hash, bytes_total=size, holders=(world.peer(0), world.peer(2))
            ),
        )
        await world.kill(0)
        (text,) = (await outset(world, spec(both))).texts
        assert text.is_whole == (size <= WHOLE_BYTES_MAX)
        assert text.text == "x" * (size if text.is_whole else HEAD_BYTES)
        await world.kill(2)
        gone = ContentRef(
            hash=ContentHash("0" * 64),
            bytes_total=size,
            holders=(world.peer(0), world.peer(1), world.peer(2)),
        )
        before = trio.current_time()
        with pytest.raises(PeerUnreachableError, match="000000000000"):
            await outset(world, spec(Input(name="it", content=gone)))
        assert trio.current_time() - before < 30


async def test_a_task_without_inputs_asks_nobody(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER]) as world:
        assert (await outset(world, spec())).texts == ()


# --- what the mesh can do -----------------------------------------------------------------------


async def test_languages_are_those_that_some_reachable_peer_runs(
    virtual_time: JumpingClock,
) -> None:
    perl = dataclasses.replace(WORKER, languages={"perl": "5.36"})
    idle = dataclasses.replace(WORKER, languages={"ruby": "3.1"}, roles=("infer",))
    async with open_world([ASKER, LEADER, WORKER, perl, idle]) as world:
        assert languages(world[1].mesh) == {"python", "bash", "perl"}
        await world.kill(3)
        await world.until(lambda: not world[1].mesh.is_routable(world.places[3].identity.peer))
        assert languages(world[1].mesh) == {"python", "bash"}


async def test_models_are_everybodys_once_each_the_best_peers_first(
    virtual_time: JumpingClock,
) -> None:
    two = dataclasses.replace(THINKER, models=("m", "n"))
    async with open_world([ASKER, LEADER, THINKER, two]) as world:
        names = models(world[1].mesh)
        assert sorted(names) == ["m", "n"]
        assert models(world[0].mesh) == names
    async with open_world([ASKER, LEADER]) as world:
        assert models(world[1].mesh) == ()


def with_windows(world: World, windows: dict[int, dict[str, int | None]]) -> None:
    """Give the models of nodes windows; peers hear of it with the next profile."""
    for number, of in windows.items():
        world.places[number].backend.models = tuple(
            ModelInfo(name, context_tokens=tokens) for name, tokens in of.items()
        )


WINDOWS = {
    None: 4096,
    "small": 4096,
    "large": 32_768,
    "silent": WINDOW_TOKENS_DEFAULT,
    "huge": SessionLimits().window_tokens,
    "nosuch": SessionLimits().window_tokens,
}


async def test_limits_fit_the_smallest_window_that_may_be_asked(
    virtual_time: JumpingClock,
) -> None:
    one = dataclasses.replace(THINKER, models=("large", "silent"))
    other = dataclasses.replace(THINKER, models=("small", "huge", "large"))
    async with open_world([ASKER, LEADER, one, other]) as world:
        with_windows(
            world,
            {
                2: {"large": 65_536, "silent": None},
                3: {"small": 4096, "huge": 10**9, "large": 32_768},
            },
        )
        await world.until(lambda: window(world, "small") == 4096)
        for model, tokens in WINDOWS.items():
            told = await outset(world, spec(model=model))
            assert told.limits == limits_for(tokens), model


def window(world: World, model: str) -> int | None:
    """What the leader has heard of it."""
    profiles = [facts.profile for facts in world[1].mesh.facts()]
    found = [one for profile in profiles if profile for one in profile.models if one.name == model]
    return found[0].context_tokens if found else None


# --- what cells see -----------------------------------------------------------------------------


async def test_a_prompt_that_is_an_input_lies_where_cells_find_it(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world([ASKER, LEADER]) as world:
        one = await given(world, 0, "one", b"x")
        task = spec(one)
        store = world[1].store
        assert await cell_inputs(task, None, store) == (one,)
        first, prompt = await cell_inputs(task, "prompt.txt", store)
        assert (first, prompt.name) == (one, "prompt.txt")
        assert await store.read(prompt.content) == b"what is in it?"
        assert prompt.content.holders == (world.peer(1),)
