"""What a session is told when it opens: texts of its inputs, and what the mesh can do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import trio

from kowalski.mesh.conversation import Conversation
from kowalski.mesh.mesh import CONTENT_PROTOCOL
from kowalski.node.backends.seam import BackendError, ModelInfo
from kowalski.node.services.session_inputs import (
    COUNT_S,
    HEAD_BYTES,
    WHOLE_BYTES_MAX,
    cell_inputs,
    gather,
    languages,
    limits_of,
    models,
    open_now,
)
from kowalski.protocol.errors import PeerUnreachableError
from kowalski.protocol.ids import ContentHash
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.content import ContentAsked, ContentRef
from kowalski.protocol.messages.journal import Opened
from kowalski.protocol.messages.repl import Input
from kowalski.protocol.messages.task import TaskSpec
from kowalski.rlm.session import CannotOpen, InputText, SessionLimits, limits_for
from kowalski.rlm.window_size import UNLEARNT
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


async def texts_of(world: World, task: TaskSpec, number: int = 1) -> tuple[InputText, ...]:
    """As the leader gathers them."""
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
        told = await texts_of(world, spec(small, large))
        assert told == (
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
        told = await texts_of(world, spec(half, more, rest))
        assert [(one.name, one.is_whole, len(one.text)) for one in told] == [
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
        (text,) = await texts_of(world, spec(large))
        assert text == InputText("large", "x" * HEAD_BYTES, is_whole=False)


async def test_bytes_that_are_no_text_do_not_end_a_task(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER]) as world:
        image = await given(world, 0, "image", b"\x89PNG\r\n")
        (text,) = await texts_of(world, spec(image))
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
        (text,) = await texts_of(world, spec(both))
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
            await texts_of(world, spec(Input(name="it", content=gone)))
        assert trio.current_time() - before < 30


async def test_a_task_without_inputs_asks_nobody(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER]) as world:
        assert await texts_of(world, spec()) == ()


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
    None: 3072,
    "small": 3072,
    "large": 28_672,
    "silent": 6144,
    "huge": SessionLimits().window_tokens,
    "nosuch": SessionLimits().window_tokens,
}
"""What is left of the smallest window beside a reply: a quarter of it, at most 4096 tokens."""


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
            assert limits_of(spec(model=model), world[1].mesh, model) == limits_for(tokens), model
        narrow = spec().model_copy(update={"window_tokens": 1000})
        assert limits_of(narrow, world[1].mesh, "large") == limits_for(1000)


# --- opening ------------------------------------------------------------------------------------

LONG_WORD = "unquestionably "
"""One token to the server of these tests, which counts words, and about two by our estimate."""

ROOM = 3072
"""What a window of 4096 leaves beside a reply."""


@pytest.mark.parametrize(
    ("word", "times", "mode"),
    [
        (LONG_WORD, ROOM - 8, "direct"),
        (LONG_WORD, ROOM + 1, "rlm"),
        ("a ", ROOM - 8, "direct"),
        ("short ", 1, "direct"),
    ],
)
async def test_what_a_peer_counts_decides_whether_a_model_is_asked_directly(
    virtual_time: JumpingClock, word: str, times: int, mode: str
) -> None:
    async with open_world([ASKER, LEADER, WORKER, THINKER]) as world:
        with_windows(world, {3: {"m": 4096}})
        await world.until(lambda: window(world, "m") == 4096)
        task = spec().model_copy(update={"prompt": word * times})
        opened, limits = await open_now(task, (), world[1].mesh)
        assert isinstance(opened, Opened)
        assert (opened.mode, opened.model, limits.window_tokens) == (mode, "m", ROOM)


async def test_where_nobody_counts_an_estimate_decides_with_a_margin(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER, THINKER]) as world:
        with_windows(world, {3: {"m": 4096}})
        await world.until(lambda: window(world, "m") == 4096)
        world.places[3].backend.failure = BackendError("unreachable", "it died")
        task = spec().model_copy(update={"prompt": LONG_WORD * (ROOM - 8)})
        began_at = trio.current_time()
        opened, limits = await open_now(task, (), world[1].mesh)
        assert isinstance(opened, Opened)
        assert (opened.mode, limits.scale) == ("rlm", UNLEARNT)
        assert trio.current_time() - began_at <= COUNT_S


async def test_a_model_is_had_by_any_of_its_names_and_one_that_cannot_chat_is_none(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER, THINKER]) as world:
        world.places[3].backend.models = (
            ModelInfo("nomic-embed-text", context_tokens=512, capabilities=("embed",)),
            ModelInfo("llama3.2:3b", context_tokens=16_384, capabilities=("chat",)),
        )
        await world.until(lambda: window(world, "llama3.2:3b") == 16_384)
        mesh = world[1].mesh
        assert models(mesh) == ("llama3.2:3b",)
        for model, opens_with in ((None, "llama3.2:3b"), ("llama3.2", "llama3.2")):
            opened, limits = await open_now(spec(model=model), (), mesh)
            assert isinstance(opened, Opened)
            assert (opened.model, limits) == (opens_with, limits_for(12_288))
        no, _ = await open_now(spec(model="nomic-embed-text"), (), mesh)
        assert isinstance(no, CannotOpen)
        assert no.code == "no_model"


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
