"""The mesh for a Python program: tasks, single calls, programs and folds through the local node.

Runs on trio and on asyncio, through anyio. Made by `Kowalski.builder()`; `kowalski.sync` has the
same for programs without an event loop.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

import anyio

from kowalski import folds
from kowalski.answers import failure_of, schema_of, valued
from kowalski.batches import WIDTH_MAX, Batch, Mode, Task
from kowalski.builder import Builder, Settings
from kowalski.cluster import DeviceFilter
from kowalski.contexts import Context, spooled
from kowalski.counting import Counted
from kowalski.errors import (
    BudgetSpent,
    DeviceFailed,
    DeviceNotFound,
    REPLTimeout,
    RLMError,
)
from kowalski.node_link import NodeLink
from kowalski.progress import TaskProgress
from kowalski.results import (
    AskResult,
    Device,
    ExecutionMetrics,
    ExecutionResult,
    FoldResult,
    FoundFold,
    Json,
    ProgressUpdate,
    RunResult,
    device_of,
    result_of,
)
from kowalski.streams import Broadcast

T = TypeVar("T")

TURNS_BLOCKS, TURNS_RLM = 5, 30
"""What the node takes where nothing is said."""

GRACE_S = 60.0
"""What the node may take to give up, beyond the time that a request has."""

CONNECTIONS_MAX = WIDTH_MAX + 4
"""At a time; a node serves 32, the command line's among them."""

METRICS_EVERY_S = 1.0


class Kowalski:
    """Use as `async with Kowalski.builder()....build() as k`. One may serve many tasks at once."""

    def __init__(self, link: NodeLink, settings: Settings) -> None:
        self.settings = settings
        self._link = link
        self._progress: Broadcast[ProgressUpdate] = Broadcast(
            lambda item, missed: replace(item, missed=missed)
        )
        self._slots = anyio.CapacityLimiter(CONNECTIONS_MAX)
        self._counted = Counted()
        self._belongings = AsyncExitStack()

    @staticmethod
    def builder() -> Builder:
        return Builder()

    def keep(self, belongings: AsyncExitStack) -> None:
        """Hand over what is to be closed with the client, such as a node of its own."""
        self._belongings = belongings

    async def aclose(self) -> None:
        """End all subscriptions and an own node; tasks go on, on other nodes."""
        self._progress.close()
        await self._belongings.aclose()

    # --- tasks ----------------------------------------------------------------------------------

    @overload
    async def execute(
        self,
        prompt: str,
        task_id: str | None = None,
        *,
        answer_type: None = None,
        context: Context = None,
        mode: Mode = "auto",
        model: str | None = None,
        **options: Any,
    ) -> ExecutionResult[str]: ...

    @overload
    async def execute(
        self,
        prompt: str,
        task_id: str | None = None,
        *,
        answer_type: type[T],
        context: Context = None,
        mode: Mode = "auto",
        model: str | None = None,
        **options: Any,
    ) -> ExecutionResult[T]: ...

    async def execute(
        self,
        prompt: str,
        task_id: str | None = None,
        *,
        answer_type: Any = None,
        context: Context = None,
        mode: Mode = "auto",
        model: str | None = None,
        **options: Any,
    ) -> ExecutionResult[Any]:
        """Give the mesh a task and wait for its answer.

        `task_id`: a name of your own; the same name is the same task, so asking twice follows the
        first. `answer_type`: any type that pydantic knows; the answer is held to its JSON schema,
        a model is told what does not fit, and `value` is an instance. `options` as the fields of
        `kowalski-node submit`: `timeout_s`, `max_iterations`, `calls_max`, `tokens_max`, `depth`,
        `quality`, `drafts`, `sub_model`, `seed`, `priority` and so on; docs/how-to/from-python.md
        has them all. Cancelled, the task goes on; `cancel_task` stops it.

        Raises:
            TaskCancelled, BudgetSpent, AnswerMisfit, NoDevicesAvailable, DeviceFailed,
            ExecutionError: it ended so; `result` is there.
            ConfigError: an argument is wrong.
            NetworkError: the local node cannot be reached.
        """
        request = self._defaults()
        request |= {"prompt": prompt, "task_id": task_id, "mode": mode}
        if model is not None:
            request["model"] = model
        if answer_type is not None:
            request["json_schema"] = json.dumps(schema_of(answer_type))
        request |= options
        with spooled(context) as files:
            if files:
                request["context"] = files
            if request.get("detach"):
                kept = await self._ask("submit", request, silence_s=GRACE_S)
                return await self._follow("attach", {"task": kept["task"]}, answer_type)
            return await self._follow("submit", request, answer_type)

    async def execute_batch(
        self, tasks: Iterable[str | Task], *, width: int | None = None
    ) -> list[ExecutionResult[Any] | RLMError]:
        """Execute many tasks, `width` at a time; results in their order, errors in their slots.

        Without `width`, 16 at a time; with `ClusterConfig.auto_scaling`, as many as the devices
        have places for, looked at again while it goes.
        """
        wanted = [Task(one) if isinstance(one, str) else one for one in tasks]
        return await Batch(self, self._counted, wanted, width).run()

    async def execute_task(self, task: Task) -> ExecutionResult[Any]:
        result: ExecutionResult[Any] = await self.execute(
            task.prompt,
            task.task_id,
            answer_type=task.answer_type,
            context=task.context,
            mode=task.mode,
            model=task.model,
            **(task.options or {}),
        )
        return result

    async def attach(self, task_id: str) -> ExecutionResult[str]:
        """Wait for a task that was submitted before, from here or from another device.

        Raises: as `execute`.
        """
        return await self._follow("attach", {"task": task_id}, None)

    async def resume(self, task_id: str, *, timeout_s: float | None = None) -> str:
        """Go on with a task that waits, failed or was cancelled; its name from now on.

        What was done is not done again. `attach` waits for it.
        """
        request: dict[str, object] = {"task": task_id}
        if timeout_s is not None:
            request["timeout_s"] = timeout_s
        return str((await self._ask("resume", request))["task"])

    async def cancel_task(self, task_id: str) -> str:
        """Stop a task wherever it runs; what there is of an answer.

        Raises:
            ExecutionError: no such task is known.
        """
        return str((await self._ask("cancel", {"task": task_id}, silence_s=GRACE_S))["answer"])

    async def trace(self, task_id: str) -> Json:
        """Everything that happened in a task, entry by entry."""
        return await self._ask("trace", {"task": task_id})

    async def files(self, task_id: str) -> Mapping[str, Path]:
        """The files that the cells of a task left, fetched to this device.

        Raises:
            DeviceFailed: one cannot be had any more.
        """
        return _paths((await self._ask("files", {"task": task_id}, silence_s=GRACE_S))["files"])

    def _defaults(self) -> dict[str, Any]:
        """What the builder was told, as every task carries it."""
        cluster = self.settings.cluster
        retry = cluster.network_retry_policy
        return {
            "model": self.settings.model,
            "devices": str(cluster.device_filter),
            "failover": str(cluster.failover_strategy),
            "retries_max": retry.max_retries,
            "retry_delay_s": float(retry.retry_delay_s),
            "retry_is_exponential": retry.exponential_backoff,
            **self.settings.options,
        }

    async def _follow(self, verb: str, request: Json, answer_type: Any) -> ExecutionResult[Any]:
        began = time.monotonic()
        request = {name: value for name, value in request.items() if value is not None}
        default = TURNS_BLOCKS if request.get("mode") == "blocks" else TURNS_RLM
        turns = int(request.get("max_iterations", default))
        name = str(request.get("task_id") or request.get("task") or "")
        progress = TaskProgress(name, turns, began)

        def on_event(event: Json) -> None:
            self._progress.say(progress.update(event, time.monotonic()))

        timeout_s = float(request.get("timeout_s", 7 * 86_400.0 if verb == "attach" else 3600.0))
        state = "failed"
        with self._counted.running():
            try:
                done = await self._ask(
                    verb, request, on_event=on_event, silence_s=timeout_s + GRACE_S
                )
                result = result_of(done, time.monotonic() - began)
                state = result.state
                self._counted.ended(result)
            finally:
                self._progress.say(progress.ended(state, time.monotonic()))
        if result.state != "answered":
            raise failure_of(result)
        return valued(result, answer_type)

    # --- single pieces of work ------------------------------------------------------------------

    async def ask(self, prompt: str, **options: Any) -> AskResult:
        """One call of one model, on the best device that has it.

        `options`: `model`, `system`, `max_tokens`, `temperature`, `top_p`, `seed`, `stop`,
        `json_schema`, `thinking`, `images` (paths), `timeout_s`.

        Raises:
            NoDevicesAvailable, DeviceFailed, ConfigError, NetworkError.
        """
        request = {"prompt": prompt, "model": self.settings.model, **options}
        done = await self._single("ask", request)
        usage = done["usage"]
        return AskResult(
            text=done["text"],
            thinking=done["thinking"],
            model=done["model"],
            finish_reason=done["finish_reason"],
            prompt_tokens=usage["prompt_tokens"],
            completion_tokens=usage["completion_tokens"],
            peer=done["peer"],
            name=done["name"],
            attempts=done["attempts"],
        )

    async def run(
        self, language: str, code: str, *, check: bool = False, **options: Any
    ) -> RunResult:
        """Run one program on the best device. How it ends is in the result, unless `check`.

        `options`: `timeout_s`, `args`, `name`, `wants_files`, `stdin` (a path).

        Raises:
            NoDevicesAvailable: no device runs this language.
            REPLTimeout: it was not over in time, and nobody knows how far it came.
            REPLError, REPLTimeout: with `check`, see `RunResult.check`.
            DeviceFailed, ConfigError, NetworkError.
        """
        told: dict[str, list[str]] = {"stdout": [], "stderr": []}

        def on_event(event: Json) -> None:
            if event.get("kind") == "output":
                told[str(event["stream"])].append(str(event["text"]))
            elif event.get("kind") == "restart":
                told["stdout"].clear()
                told["stderr"].clear()

        request = {"language": language, "code": code, **options}
        try:
            done = await self._single("run", request, on_event=on_event)
        except BudgetSpent as error:
            raise REPLTimeout(str(error), code=error.code) from error
        result = RunResult(
            stdout="".join(told["stdout"]),
            stderr="".join(told["stderr"]),
            exit_code=done["exit_code"],
            status=done["status"],
            error=done["error"] or "",
            value=done["value"] or "",
            duration_s=done["duration_s"],
            files={name: str(path) for name, path in _paths(done["files"]).items()},
            peer=done["peer"],
            name=done["name"],
        )
        return result.check() if check else result

    async def fold(
        self,
        text: str | Path,
        *,
        budget_tokens: int | None = None,
        ratio: float | None = None,
        question: str | None = None,
        fits: str | None = None,
        timeout_s: float = 600.0,
    ) -> FoldResult:
        """Compress a text, or a file, until it fits a budget of tokens; to a quarter by default.

        `fits` is the model whose tokens are meant, where a device can count for it.

        Raises:
            ContextFoldingError: it could not be done, on no device that was tried.
            NoDevicesAvailable, ConfigError, NetworkError.
        """
        size = {"budget_tokens": budget_tokens, "ratio": ratio, "fits": fits}
        request = {**size, "question": question, "timeout_s": timeout_s}
        return await folds.fold(self._single, text, request)

    async def unfold(
        self,
        handle: str,
        *,
        question: str | None = None,
        budget_tokens: int | None = None,
        timeout_s: float = 60.0,
    ) -> str:
        """The original of a fold, from whichever device holds it.

        With a question only what may answer it, in at most `budget_tokens` (1000).

        Raises:
            ContextFoldingError: no device that can be reached holds it (`unknown`).
            ConfigError, NetworkError.
        """
        wanted = {"question": question, "budget_tokens": budget_tokens}
        return await folds.unfold(
            self._single, {"handle": handle, **wanted, "timeout_s": timeout_s}
        )

    async def find_folds(
        self, question: str, *, count: int = 3, timeout_s: float = 60.0
    ) -> tuple[FoundFold, ...]:
        """Of the texts folded on this device, the nearest to a question, the nearest first.

        By their words, and by vectors where the mesh has a model for these.

        Raises:
            ConfigError, NetworkError.
        """
        request = {"question": question, "count": count, "timeout_s": timeout_s}
        return await folds.nearest(self._single, request)

    async def _single(self, verb: str, request: Json, **more: Any) -> Json:
        given = {name: value for name, value in request.items() if value is not None}
        silence_s = float(given.get("timeout_s", 600.0)) + GRACE_S
        return await self._ask(verb, given, silence_s=silence_s, **more)

    # --- the mesh -------------------------------------------------------------------------------

    async def devices(self) -> tuple[Device, ...]:
        """All devices of the mesh, this one among them, whatever the device filter says."""
        return tuple(device_of(row) for row in (await self._ask("peers"))["peers"])

    async def device(self, name: str) -> Device:
        """The one that is called so, by its name, its peer id, or the end of that.

        Raises:
            DeviceNotFound: none is, or several are.
        """
        known = await self.devices()
        found = [one for one in known if name in (one.name, one.peer)]
        found = found or [one for one in known if len(name) >= 4 and one.peer.endswith(name)]
        if len(found) != 1:
            what = "no device is" if not found else f"{len(found)} devices are"
            raise DeviceNotFound(f"{what} called {name}")
        return found[0]

    async def models(self) -> tuple[str, ...]:
        """What may be asked for now, on the devices that the filter lets through."""
        usable = await self.usable_devices()
        return tuple(dict.fromkeys(model for one in usable for model in one.models))

    async def usable_devices(self) -> list[Device]:
        """That can be sent work now, and that the device filter lets through."""
        wanted = self.settings.cluster.device_filter
        return [
            one
            for one in await self.devices()
            if one.is_routable
            and (wanted == DeviceFilter.ALL or one.is_self == (wanted == DeviceFilter.LOCAL))
        ]

    async def load_model(
        self, model: str, *, on: str | None = None, timeout_s: float = 3600.0
    ) -> str:
        """Have a model loaded, as their owners allow; the name of the device that did.

        Where exo serves it, it is split as `ClusterConfig.sharding_strategy` says.

        Raises:
            NoDevicesAvailable, DeviceFailed, ConfigError, NetworkError.
        """
        sharding = str(self.settings.cluster.sharding_strategy)
        request = {"model": model, "on": on, "sharding": sharding, "timeout_s": timeout_s}
        return str((await self._single("load", request))["name"])

    # --- watching -------------------------------------------------------------------------------

    @asynccontextmanager
    async def subscribe_to_progress(
        self, task_id: str | None = None
    ) -> AsyncIterator[AsyncIterator[ProgressUpdate]]:
        """What happens in the tasks of this client from now on, or in the one named.

        Never holds a task up: a reader more than 256 updates behind loses the oldest, and the next
        one says how many were `missed`.
        """
        reader = self._progress.subscribe(
            lambda update: task_id is None or update.task_id == task_id
        )
        try:
            yield reader
        finally:
            self._progress.leave(reader)

    @asynccontextmanager
    async def subscribe_to_metrics(
        self, every_s: float = METRICS_EVERY_S
    ) -> AsyncIterator[AsyncIterator[ExecutionMetrics]]:
        """A reading every `every_s` seconds, the first at once."""
        readings: Broadcast[ExecutionMetrics] = Broadcast(
            lambda item, missed: replace(item, missed=missed)
        )
        reader = readings.subscribe()
        async with anyio.create_task_group() as group:
            group.start_soon(partial(self._measure, readings, every_s))
            try:
                yield reader
            finally:
                group.cancel_scope.cancel()

    async def _measure(self, readings: Broadcast[ExecutionMetrics], every_s: float) -> None:
        while True:
            usable: list[Device] = []
            with suppress(RLMError):  # no device can be sent work while the node is away
                usable = await self.usable_devices()
            readings.say(self._counted.metrics(usable))
            await anyio.sleep(every_s)

    async def _ask(self, verb: str, request: Json | None = None, **more: Any) -> Json:
        async with self._slots:
            return await self._link.ask(verb, request, **more)


def _paths(rows: Sequence[Json]) -> dict[str, Path]:
    if lost := [row for row in rows if "error" in row]:
        words = "; ".join(f"{row['name']}: {row['error']}" for row in lost)
        raise DeviceFailed(words, code="lost")
    return {row["name"]: Path(row["path"]) for row in rows}
