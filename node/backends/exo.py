"""exo: one model over several devices, driven through its HTTP interface on port 52415.

exo is a program of its own and no dependency: where it is not there, nothing of this runs. What its
state means is told by `exo_state`; which way to split a model, and whether it came to life, is
decided by `core.sharding`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, Self, cast
from urllib.parse import quote

import trio

from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.backends import exo_state
from kowalski.node.backends.exo_state import Instance
from kowalski.node.backends.lines import JsonObject, parse_json
from kowalski.node.backends.openai_http import OpenAiBackend
from kowalski.node.backends.seam import BackendError, CompletionEvent, Fetched, ModelInfo
from kowalski.node.core import sharding
from kowalski.node.core.sharding import Chosen, Coming, GaveUp, Ready, Strategy, Way

if TYPE_CHECKING:
    from kowalski.node.backends.openai_models import GetJson, OpenAiServer
    from kowalski.node.backends.seam import CompletionRequest

POLL_S: Final = 1.0
COMMAND_TIMEOUT_S: Final = 10.0
"""Commands wait while exo elects a master, which takes 3.2 s each time a device comes or goes."""

SILENCE_S_MAX: Final = 30.0
"""Of the whole interface, while an instance is watched."""


LOOK_S: Final = 3.0
"""Of silence in an answer, until it is asked whether its instance is still there."""

SILENT_LOOKS_MAX: Final = 3


class ExoBackend(OpenAiBackend):
    """A `Backend`, and a `seam.Placer`."""

    @contextlib.asynccontextmanager
    async def complete(
        self, request: CompletionRequest, *, idle_timeout_s: float
    ) -> AsyncIterator[AsyncIterator[CompletionEvent]]:
        """As `Backend.complete`; an answer whose instance is gone fails within seconds.

        For exo itself does not end it: after its master was lost it sends comments for ever.
        """
        async with super().complete(request, idle_timeout_s=idle_timeout_s) as events:
            yield _Watched(events, partial(self._look_after, request.model))

    async def instances(self) -> tuple[Instance, ...]:
        """All instances, ready or not."""
        return await read_instances(self._get_json, self._server)

    async def loadable(self) -> tuple[ModelInfo, ...]:
        """Its catalogue: what could be loaded, if there is memory for it."""
        return exo_state.catalogue(await self._get_json(f"{self._server.api_url}/models"))

    async def free_bytes(self) -> Mapping[str, int]:
        """The free memory of each device that takes part."""
        topology = await self._state("topology")
        memory = await self._state("nodeMemory")
        return exo_state.free_bytes(memory, exo_state.devices(topology))

    async def ways(self, model: str) -> tuple[Way, ...]:
        """How exo could split the model over the devices that it has now.

        Raises:
            BackendError: `model_missing`, it is not in exo's catalogue; else as `list_models`.
        """
        url = f"{self.url}/instance/previews?model_id={quote(model, safe='')}"
        return tuple(map(_way, exo_state.ways(await self._get_json(url))))

    async def choose(self, model: str, strategy: Strategy, devices_min: int = 1) -> Chosen:
        """One of its ways, and why."""
        ways = await self.ways(model)
        return sharding.choose(ways, strategy, await self.free_bytes(), devices_min=devices_min)

    @contextlib.asynccontextmanager
    async def load(
        self, model: str, *, strategy: Strategy, devices_min: int
    ) -> AsyncIterator[AsyncIterator[Fetched]]:
        """Place the model, and watch it come up; see `seam.Placer`."""
        steps = self._steps(model, strategy, devices_min)
        async with contextlib.aclosing(steps):
            yield steps

    async def unload(self, model: str) -> None:
        """Take down all instances of the model.

        Raises:
            BackendError: `model_missing`, there is none.
        """
        found = [one for one in await self.instances() if one.model == model]
        if not found:
            raise BackendError("model_missing", f"exo has no instance of {model}")
        for instance in found:
            await self._take_down(instance.id)

    async def _look_after(self, model: str) -> None:
        """Never returns.

        Raises:
            BackendError: `bad_reply`, no instance of the model is left that could answer;
                `unreachable`, exo does not say whether there is one.
        """
        silent = 0
        while True:
            await trio.sleep(LOOK_S)
            try:
                found = [one for one in await self.instances() if one.model == model]
            except BackendError as error:
                silent += 1
                if silent >= SILENT_LOOKS_MAX:
                    raise BackendError("unreachable", f"exo went silent: {error}") from error
                continue
            silent = 0
            if not found:
                raise BackendError("bad_reply", f"exo has lost its instance of {model}")
            if all(one.readiness == "failed" for one in found):
                raise BackendError("bad_reply", f"its runners failed: {found[0].explain()}")

    async def _steps(
        self, model: str, strategy: Strategy, devices_min: int
    ) -> AsyncGenerator[Fetched, None]:
        before = await self.instances()
        chosen = await self.choose(model, strategy, devices_min)
        if chosen.way is None:
            raise BackendError("rejected", chosen.why)
        yield Fetched("placing", chosen.why)
        watch = sharding.begin(model, before, trio.current_time())
        await self._place(model, chosen.way)
        # A half of a model takes memory and answers nobody.
        half_up: str | None = None
        answered_at = trio.current_time()
        try:
            while True:
                await trio.sleep(POLL_S)
                try:
                    instances = await self.instances()
                    words = await self._downloaded(model, instances, watch.instance)
                except BackendError as error:
                    if trio.current_time() - answered_at >= SILENCE_S_MAX:
                        raise BackendError("unreachable", f"exo went silent: {error}") from error
                    continue
                answered_at = trio.current_time()
                watch, verdict = sharding.look(watch, instances, answered_at, downloaded=words)
                match verdict:
                    case Coming(words=told, share=share):
                        half_up = watch.instance
                        yield Fetched("loading", told, int(share * 100), 100)
                    case Ready():
                        half_up = None
                        return
                    case GaveUp(why=why, instance=instance):
                        half_up = instance
                        raise BackendError("bad_reply", why)
        finally:
            if half_up is not None:
                with trio.move_on_after(COMMAND_TIMEOUT_S) as last_words:
                    last_words.shield = True
                    await self._take_down(half_up)

    async def _place(self, model: str, way: Way) -> None:
        body: JsonObject = {
            "model_id": model,
            "sharding": way.sharding.capitalize(),
            "instance_meta": way.link,
            "min_nodes": way.devices,
        }
        await self._command("POST", "/place_instance", body)

    async def _take_down(self, instance: str) -> None:
        with contextlib.suppress(BackendError):
            await self._command("DELETE", f"/instance/{quote(instance, safe='')}", None)

    async def _command(self, method: str, path: str, body: JsonObject | None) -> None:
        reply = await self._http.fetch(
            f"{self.url}{path}",
            method=method,
            headers=self._headers,
            body=json.dumps(body).encode() if body is not None else b"",
            timeout_s=COMMAND_TIMEOUT_S,
        )
        if reply.status != 200:
            raise self._status_error(reply)
        parse_json(reply.body)

    async def _downloaded(
        self, model: str, instances: tuple[Instance, ...], ours: str | None
    ) -> str:
        """How far the devices of our instance are with fetching the model, if they are at it."""
        devices = [device for one in instances if one.id == ours for device in one.devices]
        told: list[str] = []
        for device in devices[:8]:
            # Not there in older versions, and not worth an error.
            with contextlib.suppress(BackendError):
                state = await self._state(f"downloads/{quote(device, safe='')}")
                if words := exo_state.downloaded(state, model):
                    told.append(words)
        return "; ".join(told)

    async def _state(self, path: str) -> object:
        """A part of the state; before v1.0.70 it came in one piece only."""
        try:
            return await self._get_json(f"{self.url}/state/{path}")
        except BackendError as error:
            if error.code != "model_missing":
                raise
        whole: object = await self._get_json(f"{self.url}/state")
        for name in path.split("/"):
            whole = whole.get(name) if isinstance(whole, dict) else None
        return whole


class _Watched:
    """The events of an answer; `look_after` runs while the next one is waited for."""

    def __init__(
        self, events: AsyncIterator[CompletionEvent], look_after: Callable[[], Awaitable[None]]
    ) -> None:
        self._events = events
        self._look_after = look_after

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> CompletionEvent:
        event: CompletionEvent | None = None
        async with open_plain_nursery() as nursery:
            nursery.start_soon(self._look_after)
            event = await anext(self._events, None)
            nursery.cancel_scope.cancel()
        if event is None:
            raise StopAsyncIteration
        return event


async def list_exo(get: GetJson, server: OpenAiServer) -> tuple[ModelInfo, ...]:
    """The models of the instances all of whose runners are ready or running."""
    return exo_state.usable(await read_instances(get, server))


async def read_instances(get: GetJson, server: OpenAiServer) -> tuple[Instance, ...]:
    try:
        instances = await get(f"{server.url}/state/instances")
        runners = await get(f"{server.url}/state/runners")
    except BackendError as error:
        if error.code != "model_missing":
            raise
        # Before v1.0.70 the state came in one piece only.
        state = await get(f"{server.url}/state")
        whole = cast("JsonObject", state) if isinstance(state, dict) else {}
        instances, runners = whole.get("instances"), whole.get("runners")
    return exo_state.instances(instances, runners)


def _way(told: JsonObject) -> Way:
    """One preview. Its parts are None where it cannot be."""
    delta = told.get("memory_delta_by_node")
    bytes_by_device = {
        str(device): size
        for device, size in (delta.items() if isinstance(delta, dict) else ())
        if isinstance(size, int) and not isinstance(size, bool) and size > 0
    }
    instance = exo_state.instances({"preview": told.get("instance")}, None)
    devices = len(instance[0].runners) if instance else len(bytes_by_device)
    error = told.get("error")
    why_not = error[:200] if isinstance(error, str) and error else ""
    if not why_not and not devices:
        why_not = "exo gives no placement for it"
    link = told.get("instance_meta")
    return Way(
        "tensor" if str(told.get("sharding")).lower().startswith("tensor") else "pipeline",
        link[:32] if isinstance(link, str) else "MlxRing",
        bytes_by_device,
        devices,
        why_not,
    )
