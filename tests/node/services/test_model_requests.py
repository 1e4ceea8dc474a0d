"""What a peer may have done with the models here, and what it hears meanwhile."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from kowalski.node.backends.catalogue import Catalogue, open_catalogue
from kowalski.node.backends.in_memory import InMemoryBackend
from kowalski.node.backends.probing import Candidate, Finding
from kowalski.node.backends.seam import Backend, BackendError, Fetched, ModelInfo
from kowalski.node.core.model_policy import ModelRules
from kowalski.node.model_book import ModelBook
from kowalski.node.services.inference import PROTOCOL, InferenceRoom
from kowalski.node.services.model_requests import ModelRequests
from kowalski.protocol.errors import RequestFailedError, RequestRefusedError
from kowalski.protocol.messages import inference as wire
from kowalski.protocol.messages.base import Message
from simulations.virtual_time import JumpingClock
from tests.faulty_network import open_faulty
from tests.node.backends.asking import estimate
from tests.node.services.rooms import PatientClock, Two, hot, open_two
from tests.scripted_exo import MODEL, ScriptedExo

pytestmark = pytest.mark.trio

GB = 10**9
MEMBERS = ModelRules(who="members")


@pytest.fixture
def virtual_time() -> JumpingClock:
    return PatientClock()


class PullingBackend(InMemoryBackend):
    """Fetches any model in four steps of a second; one named `missing` there is not."""

    def __init__(self, *models: ModelInfo) -> None:
        super().__init__(lambda _: "yes", models=models, name="ollama", url="memory://ollama")
        self.size_bytes = 4 * GB
        self.done: list[str] = []

    @asynccontextmanager
    async def pull(
        self, model: str, *, idle_timeout_s: float
    ) -> AsyncIterator[AsyncIterator[Fetched]]:
        steps = self._steps(model)
        async with aclosing(steps):
            yield steps

    async def _steps(self, model: str) -> AsyncGenerator[Fetched, None]:
        self.done.append(f"pull {model}")
        yield Fetched("preparing", "pulling manifest")
        if model == "missing":
            raise BackendError("model_missing", "file does not exist")
        for percent in range(0, 101, 5):
            await trio.sleep(0.05)
            done = self.size_bytes * percent // 100
            yield Fetched("downloading", "layer", done, self.size_bytes)
        self.models = (*self.models, ModelInfo(model, size_bytes=self.size_bytes))
        yield Fetched("ready", "success")

    async def remove(self, model: str) -> None:
        await trio.lowlevel.checkpoint()
        self.done.append(f"remove {model}")
        self.models = tuple(one for one in self.models if one.name != model)

    async def unload(self, model: str) -> None:
        await trio.lowlevel.checkpoint()
        self.done.append(f"unload {model}")


@dataclass(slots=True)
class Desk:
    two: Two
    catalogue: Catalogue
    book: ModelBook
    progress: list[wire.ModelProgress] = field(default_factory=list)

    async def ask(self, request: Message) -> Any:  # noqa: ANN401 whatever ends it
        async with self.two.asking.asker.converse(
            self.two.room.peer, PROTOCOL, request
        ) as conversation:
            while isinstance(message := await conversation.receive(), wire.ModelProgress):
                self.progress.append(message)
        return message

    @property
    def names(self) -> list[str]:
        return [one.model.name for one in self.catalogue.listings()]


@asynccontextmanager
async def open_desk(
    folder: Path,
    *backends: Backend,
    rules: ModelRules = MEMBERS,
    roles: tuple[str, ...] = ("submit",),
    clock: Callable[[], float] = lambda: 1000.0,
) -> AsyncIterator[Desk]:
    by_url = {backend.url: backend for backend in backends}

    async def look(wanted: Sequence[Candidate]) -> tuple[Finding, ...]:
        await trio.lowlevel.checkpoint()
        return tuple(Finding(one.url, True, "openai", by_url[one.url]) for one in wanted)

    places = [Candidate(url, url) for url in by_url]
    book = ModelBook(folder / "models.json", clock)
    async with open_two(folder) as two, open_catalogue(places, look) as catalogue:
        about = ModelRequests(
            catalogue, book, rules, me=two.room.peer, roles_of=lambda _: roles, hot=hot
        )
        room = InferenceRoom(
            catalogue,
            two.room.store,
            two.room.requester,
            hot=hot,
            models=about,
            on_use=book.use,
        )
        two.room.serve(PROTOCOL, room.answer)
        yield Desk(two, catalogue, book)


def pull(model: str, **more: Any) -> wire.PullAsked:  # noqa: ANN401 fields
    return wire.PullAsked(model=model, **{"remaining_s": 60.0, **more})


# --- fetching -----------------------------------------------------------------------------------


async def test_a_model_is_fetched_with_progress_and_can_be_asked_at_once(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    server = PullingBackend()
    async with open_desk(tmp_path, server) as desk:
        ready = await desk.ask(pull("qwen3:8b"))
        assert (ready.model, ready.backend) == ("qwen3:8b", "ollama")
        assert ready.held_s >= 1
        assert desk.names == ["qwen3:8b"]
        stages = [step.stage for step in desk.progress]
        assert stages[0] == "preparing"
        assert stages[-1] == "ready"
        # Twenty steps in a second: not each is worth a message.
        assert 2 <= stages.count("downloading") <= 5
        assert desk.book.is_pulled("qwen3:8b")


async def test_a_model_that_nobody_has_is_said_to_be_missing(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path, PullingBackend()) as desk:
        with pytest.raises(RequestRefusedError, match="unsupported: file does not exist"):
            await desk.ask(pull("missing"))


async def test_one_model_is_fetched_once_at_a_time(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    server = PullingBackend()
    async with open_desk(tmp_path, server) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.ask, pull("m"))
        await trio.sleep(0.3)
        with pytest.raises(RequestRefusedError, match="busy: m is being fetched") as busy:
            await desk.ask(pull("m"))
        assert busy.value.retry_after_s
        await desk.ask(pull("other"))
    assert server.done == ["pull m", "pull other"]


async def test_who_leaves_stops_the_fetching(virtual_time: JumpingClock, tmp_path: Path) -> None:
    server = PullingBackend()
    async with open_desk(tmp_path, server) as desk:
        with trio.move_on_after(0.3):
            await desk.ask(pull("m"))
        await trio.sleep(5)
        assert desk.names == []
        await desk.ask(pull("m"))
        assert desk.names == ["m"]


async def test_a_pull_that_takes_too_long_is_a_timeout(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path, PullingBackend()) as desk:
        with pytest.raises(RequestFailedError, match="timeout"):
            await desk.ask(pull("m", remaining_s=0.5))


async def test_a_device_without_such_a_server_says_so(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path, InMemoryBackend(lambda _: "yes")) as desk:
        with pytest.raises(RequestRefusedError, match="no server on this device fetches models"):
            await desk.ask(pull("m"))
        with pytest.raises(RequestRefusedError, match="no ollama on this device fetches"):
            await desk.ask(pull("m", backend="ollama"))
        with pytest.raises(RequestRefusedError, match="no server on this device splits models"):
            await desk.ask(wire.LoadAsked(model="m", remaining_s=9))
        with pytest.raises(RequestRefusedError, match="no server on this device splits models"):
            await desk.ask(wire.PreviewsAsked(model="m", remaining_s=9))


async def reason_of(desk: Desk, request: Message) -> str:
    """Of the refusal; empty if it was done."""
    try:
        await desk.ask(request)
    except RequestRefusedError as no:
        return no.reason
    return ""


# --- what the owner allows ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "roles", "is_allowed"),
    [
        ("nobody", ("admin",), False),
        ("owner", ("submit",), False),
        ("owner", ("submit", "admin"), True),
        ("members", ("submit",), True),
    ],
)
async def test_only_whom_the_owner_lets_may_change_models(
    virtual_time: JumpingClock,
    tmp_path: Path,
    who: Any,  # noqa: ANN401 one of the words
    roles: tuple[str, ...],
    is_allowed: bool,
) -> None:
    server = PullingBackend(ModelInfo("here"))
    async with open_desk(tmp_path, server, rules=ModelRules(who), roles=roles) as desk:
        changes = (
            pull("m"),
            wire.UnloadAsked(model="here", remaining_s=9),
            wire.LoadAsked(model="m", remaining_s=9),
        )
        for change in changes:
            reason = await reason_of(desk, change)
            assert (reason == "not_allowed") is not is_allowed
        # Looking is free.
        assert (await desk.ask(wire.CatalogueAsked(remaining_s=9))).models
    assert bool(server.done) is is_allowed


async def test_room_is_made_by_the_owners_rules(virtual_time: JumpingClock, tmp_path: Path) -> None:
    rules = ModelRules("members", bytes_max=10 * GB, evict="pulled")
    server = PullingBackend(ModelInfo("mine", size_bytes=3 * GB))
    now = [1000.0]
    async with open_desk(tmp_path, server, rules=rules, clock=lambda: now[0]) as desk:
        await desk.ask(pull("first"))
        assert desk.names == ["first", "mine"]
        now[0] = 2000.0
        await desk.ask(pull("second"))
        assert set(desk.names) == {"second", "mine"}
        assert ("evicting", "deleting first to make room") in [
            (step.stage, step.detail) for step in desk.progress
        ]
        assert not desk.book.is_pulled("first")
        server.size_bytes = 8 * GB
        with pytest.raises(RequestFailedError, match="1000000000 over the owner's 10000000000"):
            await desk.ask(pull("third"))
        assert set(desk.names) == {"second", "mine"}


async def test_what_was_used_last_stays_longest(virtual_time: JumpingClock, tmp_path: Path) -> None:
    rules = ModelRules("members", bytes_max=10 * GB, evict="pulled")
    now = [1000.0]
    async with open_desk(tmp_path, PullingBackend(), rules=rules, clock=lambda: now[0]) as desk:
        await desk.ask(pull("a"))
        now[0] = 2000.0
        await desk.ask(pull("b"))
        now[0] = 3000.0
        message = wire.ChatMessage(role="user", content="?")
        async with desk.two.asking.asker.converse(
            desk.two.room.peer,
            PROTOCOL,
            wire.CompletionAsked(model="a", messages=(message,), remaining_s=9),
        ) as conversation:
            while not isinstance(await conversation.receive(), wire.CompletionDone):
                pass
        await desk.ask(pull("c"))
        assert set(desk.names) == {"a", "c"}


# --- unloading ----------------------------------------------------------------------------------


async def test_a_model_is_unloaded_or_deleted_by_any_of_its_names(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    server = PullingBackend(ModelInfo("llama3.2:3b"), ModelInfo("llama3.2:1b"))
    async with open_desk(tmp_path, server) as desk:
        gone = await desk.ask(wire.UnloadAsked(model="Llama-3.2-3B-Instruct", remaining_s=9))
        assert (gone.model, gone.backend) == ("llama3.2:3b", "ollama")
        await desk.ask(wire.UnloadAsked(model="llama3.2:3b", deletes=True, remaining_s=9))
        assert desk.names == ["llama3.2:1b"]
        with pytest.raises(RequestRefusedError, match="no server on this device has it"):
            await desk.ask(wire.UnloadAsked(model="llama3.2:3b", remaining_s=9))
    assert server.done == ["unload llama3.2:3b", "remove llama3.2:3b"]


async def test_a_server_that_cannot_is_named(virtual_time: JumpingClock, tmp_path: Path) -> None:
    plain = InMemoryBackend(lambda _: "yes", models=(ModelInfo("m"),), name="vllm")
    async with open_desk(tmp_path, plain) as desk:
        with pytest.raises(RequestRefusedError, match="vllm unloads no models"):
            await desk.ask(wire.UnloadAsked(model="m", remaining_s=9))
        with pytest.raises(RequestRefusedError, match="vllm deletes no models"):
            await desk.ask(wire.UnloadAsked(model="m", deletes=True, remaining_s=9))


# --- looking ------------------------------------------------------------------------------------


async def test_everything_is_told_with_its_state(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    warm = ModelInfo("qwen3:8b", 40960, is_warm=True, slots=2, size_bytes=5, capabilities=("chat",))
    async with open_desk(tmp_path, PullingBackend(warm, ModelInfo("phi4"))) as desk:
        told = await desk.ask(wire.CatalogueAsked(remaining_s=9))
        assert [(one.name, one.state) for one in told.models] == [
            ("qwen3:8b", "warm"),
            ("phi4", "cold"),
        ]
        assert told.models[0] == wire.Listed(
            name="qwen3:8b",
            backend="ollama",
            state="warm",
            context_tokens=40960,
            size_bytes=5,
            slots=2,
            capabilities=("chat",),
        )
        assert told.can_pull
        some = await desk.ask(wire.CatalogueAsked(query="PHI", remaining_s=9))
        assert [one.name for one in some.models] == ["phi4"]


async def test_more_than_fit_are_counted(virtual_time: JumpingClock, tmp_path: Path) -> None:
    many = [ModelInfo(f"{n:04}" + "\N{WHALE}" * 250) for n in range(300)]
    async with open_desk(tmp_path, PullingBackend(*many)) as desk:
        told = await desk.ask(wire.CatalogueAsked(remaining_s=9))
        assert len(told.models) + told.left_out == 300
        assert told.left_out


# --- exo ----------------------------------------------------------------------------------------


@asynccontextmanager
async def open_exo_desk(folder: Path, exo: ScriptedExo) -> AsyncIterator[Desk]:
    from kowalski.node.backends.probing import candidate, probe  # noqa: PLC0415

    async with open_faulty(exo.give) as (_network, http):
        (finding,) = await probe([candidate("http://h")], http=http, estimate_tokens=estimate)
        assert finding.backend is not None
        async with open_desk(folder, finding.backend) as desk:
            yield desk


async def test_a_model_of_exo_is_previewed_loaded_asked_for_and_taken_down(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    exo = ScriptedExo()
    async with open_exo_desk(tmp_path, exo) as desk:
        told = await desk.ask(wire.CatalogueAsked(remaining_s=9))
        assert [(one.name, one.state) for one in told.models] == [(MODEL, "loadable")]
        previews = await desk.ask(wire.PreviewsAsked(model="llama3.3:70b", remaining_s=9))
        assert (previews.model, [one.is_chosen for one in previews.options]) == (
            MODEL,
            [True, False, False],
        )
        assert "no RDMA" in previews.options[2].why_not
        assert "pipeline" in previews.explanation
        ready = await desk.ask(
            wire.LoadAsked(model="llama3.3:70b", sharding="tensor", remaining_s=60)
        )
        assert (ready.model, ready.backend) == (MODEL, "exo")
        assert "tensor was asked for" in ready.detail
        assert desk.names == [MODEL]
        told = await desk.ask(wire.CatalogueAsked(remaining_s=9))
        assert [one.state for one in told.models] == ["warm"]
        await desk.ask(wire.UnloadAsked(model=MODEL, remaining_s=9))
        assert desk.names == []
    assert [key for key, _ in exo.commands] == ["POST /place_instance", "DELETE /instance/made"]


async def test_a_pull_of_a_model_that_exo_knows_is_a_load(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    exo = ScriptedExo()
    async with open_exo_desk(tmp_path, exo) as desk:
        ready = await desk.ask(pull("llama3.3:70b"))
        assert (ready.model, ready.backend) == (MODEL, "exo")
        with pytest.raises(RequestRefusedError, match="no server on this device fetches"):
            await desk.ask(pull("phi4"))
