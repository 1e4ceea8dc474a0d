"""Many tasks at once: as many at a time as was asked for, or as the devices have room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import anyio

from kowalski.contexts import Context
from kowalski.counting import Counted
from kowalski.errors import RLMError
from kowalski.results import ExecutionResult

if TYPE_CHECKING:
    from kowalski.client import Kowalski

Mode = Literal["auto", "blocks", "direct", "rlm"]

WIDTH = 16
WIDTH_MAX = 24
SCALE_EVERY_S = 2.0
LOAD_S = 3600.0


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a batch; the fields as the arguments of `Kowalski.execute`."""

    prompt: str
    task_id: str | None = None
    context: Context = None
    mode: Mode = "auto"
    model: str | None = None
    answer_type: Any = None
    options: Mapping[str, Any] | None = None
    """Further fields of `kowalski-node submit`'s request, such as `max_iterations`."""


class Batch:
    """`width` None: see `Kowalski.execute_batch`."""

    def __init__(
        self, client: Kowalski, counted: Counted, tasks: Sequence[Task], width: int | None
    ) -> None:
        self._client = client
        self._counted = counted
        self._tasks = tasks
        self._scales = client.settings.cluster.auto_scaling and width is None
        self._places = anyio.CapacityLimiter(max(1, width or WIDTH))
        self._results: list[ExecutionResult[Any] | RLMError] = [RLMError("not run")] * len(tasks)
        self._refused: set[str] = set()
        """Devices that would not load the model; not asked again."""

    async def run(self) -> list[ExecutionResult[Any] | RLMError]:
        self._counted.waiting += len(self._tasks)
        async with anyio.create_task_group() as helpers:
            if self._scales:
                await self._widen()
                helpers.start_soon(self._keep_scaling)
            async with anyio.create_task_group() as group:
                for slot, task in enumerate(self._tasks):
                    group.start_soon(self._run_one, slot, task)
            helpers.cancel_scope.cancel()
        return self._results

    async def _run_one(self, slot: int, task: Task) -> None:
        waits = True
        try:
            async with self._places:
                self._counted.waiting -= 1
                waits = False
                self._results[slot] = await self._client.execute_task(task)
        except RLMError as error:
            self._results[slot] = error
        finally:
            self._counted.waiting -= waits

    async def _keep_scaling(self) -> None:
        while True:
            with suppress(RLMError):  # the node is away; the tasks will say so
                await self._spread()
            await anyio.sleep(SCALE_EVERY_S)
            with suppress(RLMError):
                await self._widen()

    async def _widen(self) -> None:
        """Two at a time for each device, and up to four more where it is idle."""
        usable = await self._client.usable_devices()
        idle = sum(max(0.0, 1.0 - one.load) for one in usable)
        width = round(2 * len(usable) + 4 * idle)
        self._places.total_tokens = max(1, min(WIDTH_MAX, width))

    async def _spread(self) -> None:
        """While more tasks wait than run, load the model on one more device."""
        model = self._client.settings.model
        if model is None or self._counted.waiting <= self._places.total_tokens:
            return
        for one in await self._client.usable_devices():
            if "infer" not in one.roles or model in one.models or one.peer in self._refused:
                continue
            try:
                await self._client.load_model(model, on=one.peer, timeout_s=LOAD_S)
            except RLMError:  # its owner does not allow that, or it has not the room
                self._refused.add(one.peer)
            return
