"""The same for programs without an event loop: `with Kowalski.builder()....build() as k`.

Each call blocks. Several threads may use one client at once; behind it one thread runs the loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from anyio.from_thread import BlockingPortal, start_blocking_portal

from kowalski import builder as for_loops
from kowalski import client
from kowalski.batches import Mode, Task
from kowalski.cluster import ClusterConfig
from kowalski.contexts import Context
from kowalski.errors import RLMError
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
)

T = TypeVar("T")


class Builder:
    """As `kowalski.Builder`."""

    def __init__(self, inner: for_loops.Builder | None = None) -> None:
        self._inner = inner or for_loops.Builder()

    def with_model(self, model: str) -> Builder:
        return Builder(self._inner.with_model(model))

    def with_cluster(self, config: ClusterConfig) -> Builder:
        return Builder(self._inner.with_cluster(config))

    def with_exo_api(self, url: str) -> Builder:
        return Builder(self._inner.with_exo_api(url))

    def with_options(self, **options: Any) -> Builder:
        return Builder(self._inner.with_options(**options))

    def with_node(self, data_dir: str | Path) -> Builder:
        return Builder(self._inner.with_node(data_dir))

    def with_own_node(self, *options: str) -> Builder:
        return Builder(self._inner.with_own_node(*options))

    def build(self) -> Kowalski:
        """Raises: as `kowalski.Builder.build`, when the block is entered."""
        return Kowalski(self._inner)


class Kowalski:
    """As `kowalski.Kowalski`; connected while its block lasts."""

    def __init__(self, inner: for_loops.Builder) -> None:
        self._builder = inner
        self._stack = ExitStack()
        self._portal: BlockingPortal
        self._client: client.Kowalski

    @staticmethod
    def builder() -> Builder:
        return Builder()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal("trio"))
            building = self._portal.wrap_async_context_manager(self._builder.build())
            self._client = stack.enter_context(building)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @overload
    def execute(
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
    def execute(
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

    def execute(
        self, prompt: str, task_id: str | None = None, **options: Any
    ) -> ExecutionResult[Any]:
        """Interrupted (KeyboardInterrupt), the task goes on."""
        return self._call(partial(self._client.execute, prompt, task_id, **options))

    def execute_batch(
        self, tasks: Iterable[str | Task], *, width: int | None = None
    ) -> list[ExecutionResult[Any] | RLMError]:
        return self._call(partial(self._client.execute_batch, list(tasks), width=width))

    def attach(self, task_id: str) -> ExecutionResult[str]:
        return self._call(partial(self._client.attach, task_id))

    def resume(self, task_id: str, *, timeout_s: float | None = None) -> str:
        return self._call(partial(self._client.resume, task_id, timeout_s=timeout_s))

    def cancel_task(self, task_id: str) -> str:
        return self._call(partial(self._client.cancel_task, task_id))

    def trace(self, task_id: str) -> Json:
        return self._call(partial(self._client.trace, task_id))

    def files(self, task_id: str) -> dict[str, Path]:
        return dict(self._call(partial(self._client.files, task_id)))

    def ask(self, prompt: str, **options: Any) -> AskResult:
        return self._call(partial(self._client.ask, prompt, **options))

    def run(self, language: str, code: str, *, check: bool = False, **options: Any) -> RunResult:
        return self._call(partial(self._client.run, language, code, check=check, **options))

    def fold(self, text: str | Path, **options: Any) -> FoldResult:
        return self._call(partial(self._client.fold, text, **options))

    def unfold(self, handle: str, **options: Any) -> str:
        return self._call(partial(self._client.unfold, handle, **options))

    def find_folds(self, question: str, **options: Any) -> tuple[FoundFold, ...]:
        return self._call(partial(self._client.find_folds, question, **options))

    def devices(self) -> tuple[Device, ...]:
        return self._call(self._client.devices)

    def device(self, name: str) -> Device:
        return self._call(partial(self._client.device, name))

    def models(self) -> tuple[str, ...]:
        return self._call(self._client.models)

    @contextmanager
    def subscribe_to_progress(
        self, task_id: str | None = None
    ) -> Iterator[Iterator[ProgressUpdate]]:
        with self._block(self._client.subscribe_to_progress(task_id)) as updates:
            yield self._each(updates)

    @contextmanager
    def subscribe_to_metrics(self, every_s: float = 1.0) -> Iterator[Iterator[ExecutionMetrics]]:
        with self._block(self._client.subscribe_to_metrics(every_s)) as readings:
            yield self._each(readings)

    def _block(self, manager: Any) -> AbstractContextManager[Any]:
        return self._portal.wrap_async_context_manager(manager)

    def _each(self, items: Any) -> Iterator[Any]:
        while True:
            try:
                yield self._portal.call(items.__anext__)
            except StopAsyncIteration:
                return

    def _call(self, ask: Callable[[], Awaitable[T]]) -> T:
        return self._portal.call(ask)
