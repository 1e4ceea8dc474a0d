"""The part of the inference room about the models themselves: what there is, fetch, load, unload.

What the owner allows is decided by `core.model_policy`, what makes room by `core.model_catalogue`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import structlog
import trio

from kowalski.mesh.conversation import Conversation
from kowalski.mesh.core import model_names
from kowalski.node.backends.catalogue import Catalogue
from kowalski.node.backends.exo import ExoBackend
from kowalski.node.backends.seam import (
    Backend,
    BackendError,
    Fetched,
    ModelInfo,
    Placer,
    Puller,
)
from kowalski.node.core.model_catalogue import OnDisk, make_room
from kowalski.node.core.model_policy import ModelRules
from kowalski.node.core.sharding import Chosen, Way
from kowalski.node.model_book import ModelBook
from kowalski.protocol.errors import RequestRefusedError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages import inference as wire
from kowalski.protocol.messages.base import Message, line
from kowalski.protocol.messages.telemetry import Hot

log = structlog.get_logger(__name__)

MODELS_TOLD_MAX = 256
NAMES_BYTES_MAX = 128 * 1024
IDLE_TIMEOUT_S = 120.0
"""Of a pull without progress; a registry may be slow to answer."""

RETRY_AFTER_S = 5.0
PROGRESS_S = 0.5
"""Between two messages about the same stage: Ollama tells some hundred times a second."""

Changes = wire.PullAsked | wire.LoadAsked | wire.UnloadAsked
Asked = Changes | wire.CatalogueAsked | wire.PreviewsAsked


class ModelRequests:
    """`roles_of` tells what a peer's certificate lets it ask for; `me` is this node."""

    def __init__(
        self,
        catalogue: Catalogue,
        book: ModelBook,
        rules: ModelRules,
        *,
        me: PeerId,
        roles_of: Callable[[PeerId], tuple[str, ...]],
        hot: Callable[[], Hot],
    ) -> None:
        self._catalogue = catalogue
        self._book = book
        self._rules = rules
        self._me = me
        self._roles_of = roles_of
        self._hot = hot
        self._changing: set[str] = set()

    async def answer(self, conversation: Conversation, request: Asked, started: float) -> Message:
        """Raises BackendError besides what a room may raise."""
        match request:
            case wire.CatalogueAsked():
                return await self._tell(request, started)
            case wire.PreviewsAsked():
                return await self._preview(request, started)
            case _:
                is_on_demand = isinstance(request, wire.PullAsked) and request.is_on_demand
                self._check(conversation.peer, is_on_demand=is_on_demand)
                with self._alone(request.model):
                    return await self._change(conversation, request, started)

    async def _change(
        self, conversation: Conversation, request: Changes, started: float
    ) -> Message:
        match request:
            case wire.UnloadAsked():
                return await self._unload(request, started)
            case wire.PullAsked():
                placer = await self._placer_of(request.model, request.backend)
                if placer is not None:
                    return await self._load(conversation, _load_of(request), placer, started)
                return await self._pull(conversation, request, started)
            case wire.LoadAsked():
                placer = await self._placer_of(request.model, request.backend)
                if placer is None:
                    what = f"no server on this device splits models, or knows {request.model}"
                    raise RequestRefusedError("unsupported", what)
                return await self._load(conversation, request, placer, started)

    # --- looking --------------------------------------------------------------------------------

    async def _tell(self, request: wire.CatalogueAsked, started: float) -> wire.CatalogueTold:
        query = request.query.lower()
        found = [
            wire.Listed(
                name=one.model.name,
                backend=one.backend_name,
                state="warm" if one.model.is_warm else "cold",
                context_tokens=one.model.context_tokens,
                size_bytes=one.model.size_bytes,
                slots=one.model.slots,
                running=one.in_flight,
                tokens_per_s=one.tokens_per_s,
                prompt_tokens_per_s=one.prompt_tokens_per_s,
                capabilities=one.model.capabilities,
            )
            for one in self._catalogue.listings()
        ]
        usable = {one.name for one in found}
        for backend, model in await self._loadable():
            if model.name not in usable:
                found.append(_loadable(backend.name, model))
        matching = [one for one in found if query in one.name.lower()]
        told = _fitting(matching)
        return wire.CatalogueTold(
            models=told,
            left_out=len(matching) - len(told),
            can_pull=bool(self._pullers()) and self._rules.who != "nobody",
            held_s=trio.current_time() - started,
        )

    async def _loadable(self) -> list[tuple[Backend, ModelInfo]]:
        found: list[tuple[Backend, ModelInfo]] = []
        for backend, placer in self._placers():
            with contextlib.suppress(BackendError):
                found += [(backend, model) for model in await placer.loadable()]
        return found

    async def _preview(self, request: wire.PreviewsAsked, started: float) -> wire.Previews:
        for backend in self._catalogue.backends():
            if isinstance(backend, ExoBackend) and request.backend in (None, backend.name):
                name = await _known_as(backend, request.model) or request.model
                ways = await backend.ways(name)
                chosen = await backend.choose(name, "auto")
                return wire.Previews(
                    model=name,
                    options=tuple(_option(way, chosen) for way in ways[:32]),
                    explanation=line(chosen.why),
                    held_s=trio.current_time() - started,
                )
        raise RequestRefusedError("unsupported", "no server on this device splits models")

    # --- changing -------------------------------------------------------------------------------

    def _check(self, peer: PeerId, *, is_on_demand: bool) -> None:
        why_not = self._rules.why_not(
            is_self=peer == self._me, roles=self._roles_of(peer), is_on_demand=is_on_demand
        )
        if why_not:
            raise RequestRefusedError("not_allowed", why_not)

    @contextlib.contextmanager
    def _alone(self, model: str) -> Iterator[None]:
        """One change of a model at a time."""
        if model in self._changing:
            raise RequestRefusedError("busy", f"{model} is being fetched or loaded", RETRY_AFTER_S)
        self._changing.add(model)
        try:
            yield
        finally:
            self._changing.discard(model)

    async def _pull(
        self, conversation: Conversation, request: wire.PullAsked, started: float
    ) -> wire.ModelReady:
        backend, puller = self._puller(request.backend)
        telling = _Telling(conversation)
        has_room = self._rules.bytes_max is None
        async with puller.pull(request.model, idle_timeout_s=IDLE_TIMEOUT_S) as steps:
            async for step in steps:
                if not has_room and step.bytes_total:
                    # The layers come one by one; the first is nearly all of a model.
                    has_room = True
                    await self._make_room(backend, puller, step.bytes_total, telling)
                await telling.tell(step)
        self._book.pulled(request.model)
        return await self._ready(request.model, backend, started)

    async def _make_room(
        self, backend: Backend, puller: Puller, needed_bytes: int, telling: _Telling
    ) -> None:
        for model in self._going(backend, needed_bytes):
            log.info("model-evicted", model=model, backend=backend.url)
            await telling.tell(Fetched("evicting", f"deleting {model} to make room"))
            await puller.remove(model)
            self._book.removed(model)

    def _going(self, backend: Backend, needed_bytes: int) -> tuple[str, ...]:
        on_disk = [
            OnDisk(
                one.model.name,
                one.model.size_bytes,
                self._book.used_at_s(one.model.name),
                self._book.is_pulled(one.model.name),
                one.in_flight,
            )
            for one in self._catalogue.listings()
            if one.backend_url == backend.url
        ]
        rules = self._rules
        return make_room(needed_bytes, on_disk, bytes_max=rules.bytes_max, evict=rules.evict)

    async def _load(
        self,
        conversation: Conversation,
        request: wire.LoadAsked,
        placer: tuple[Backend, Placer, str],
        started: float,
    ) -> wire.ModelReady:
        backend, by, name = placer
        telling = _Telling(conversation)
        why = ""
        async with by.load(
            name, strategy=request.sharding, devices_min=request.devices_min
        ) as steps:
            async for step in steps:
                why = step.detail if step.stage == "placing" else why
                await telling.tell(step)
        return await self._ready(name, backend, started, why)

    async def _unload(self, request: wire.UnloadAsked, started: float) -> wire.ModelGone:
        name, backend = self._there(request)
        if request.deletes:
            if not isinstance(backend, Puller):
                raise RequestRefusedError("unsupported", f"{backend.name} deletes no models")
            await backend.remove(name)
            self._book.removed(name)
        elif isinstance(backend, Puller | Placer):
            await backend.unload(name)
        else:
            raise RequestRefusedError("unsupported", f"{backend.name} unloads no models")
        await self._catalogue.refresh()
        return wire.ModelGone(
            model=name, backend=backend.name, held_s=trio.current_time() - started
        )

    def _there(self, request: wire.UnloadAsked) -> tuple[str, Backend]:
        listings = [
            one for one in self._catalogue.listings() if request.backend in (None, one.backend_name)
        ]
        names = model_names.resolve(request.model, {one.model.name for one in listings})
        exact = [name for name in names if model_names.is_exact(request.model, name)]
        if not exact and len(names) != 1:
            told = f"which of {', '.join(names)}?" if names else "no server on this device has it"
            raise RequestRefusedError("unsupported", f"model {request.model}: {told}")
        name = (exact or list(names))[0]
        at = next(one.backend_url for one in listings if one.model.name == name)
        return name, next(one for one in self._catalogue.backends() if one.url == at)

    async def _ready(
        self, model: str, backend: Backend, started: float, detail: str = ""
    ) -> wire.ModelReady:
        await self._catalogue.refresh()
        return wire.ModelReady(
            model=model,
            backend=backend.name,
            detail=line(detail),
            held_s=trio.current_time() - started,
            hot=self._hot(),
        )

    async def _placer_of(
        self, model: str, backend: str | None
    ) -> tuple[Backend, Placer, str] | None:
        """Who could load this model, and under which name; None where nobody knows it."""
        for one, placer in self._placers():
            if backend in (None, one.name) and (name := await _known_as(placer, model)):
                return one, placer, name
        return None

    def _placers(self) -> list[tuple[Backend, Placer]]:
        return [(one, one) for one in self._catalogue.backends() if isinstance(one, Placer)]

    def _pullers(self) -> list[tuple[Backend, Puller]]:
        return [(one, one) for one in self._catalogue.backends() if isinstance(one, Puller)]

    def _puller(self, name: str | None) -> tuple[Backend, Puller]:
        for one in self._pullers():
            if name in (None, one[0].name):
                return one
        who = f"no {name}" if name else "no server"
        raise RequestRefusedError("unsupported", f"{who} on this device fetches models")


async def _known_as(placer: Placer, model: str) -> str | None:
    """The name of a model in a placer's catalogue; of several that fit, the smallest that does.

    A catalogue has every model in every quantisation: who leaves it open gets what loads easiest.
    """
    loadable = {one.name: one for one in await placer.loadable()}
    if model in loadable:
        return model
    names = model_names.resolve(model, loadable)
    return min(names, key=lambda name: (loadable[name].size_bytes, name), default=None)


class _Telling:
    """Tells the first step of each stage and then one every so often."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._stage = ""
        self._told_at = 0.0

    async def tell(self, step: Fetched) -> None:
        now = trio.current_time()
        if step.stage == self._stage and now - self._told_at < PROGRESS_S:
            return
        self._stage, self._told_at = step.stage, now
        await self._conversation.send(
            wire.ModelProgress(
                stage=step.stage,
                detail=line(step.detail),
                bytes_done=step.bytes_done,
                bytes_total=step.bytes_total,
            )
        )


def _fitting(models: list[wire.Listed]) -> tuple[wire.Listed, ...]:
    """As many as one message holds."""
    names_bytes = 0
    for number, one in enumerate(models[:MODELS_TOLD_MAX]):
        names_bytes += len(one.name.encode())
        if names_bytes > NAMES_BYTES_MAX:
            return tuple(models[:number])
    return tuple(models[:MODELS_TOLD_MAX])


def _load_of(request: wire.PullAsked) -> wire.LoadAsked:
    return wire.LoadAsked(
        model=request.model, backend=request.backend, remaining_s=request.remaining_s
    )


def _loadable(backend: str, model: ModelInfo) -> wire.Listed:
    return wire.Listed(
        name=model.name,
        backend=backend,
        state="loadable",
        context_tokens=model.context_tokens,
        size_bytes=model.size_bytes,
        capabilities=model.capabilities,
    )


def _option(way: Way, chosen: Chosen) -> wire.Preview:
    return wire.Preview(
        sharding=way.sharding,
        link=way.link,
        devices=min(way.devices, 1024),
        bytes_max=max(way.bytes_by_device.values(), default=0),
        is_chosen=way == chosen.way,
        why_not=line(way.why_not),
    )
