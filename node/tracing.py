"""Traces of what a node answers, for OpenTelemetry. The only module that imports it (extra `otel`).

A span for each request that is answered, here or over HTTP. Whatever is about a task is in the
task's trace, whose id follows from the task's: all peers agree on it without a word, also after a
coordinator was lost. The place in the trace comes from who asked (`mesh.tracing`).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from hashlib import blake2b
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from kowalski import __version__
from kowalski.mesh.conversation import Answer, Conversation
from kowalski.mesh.tracing import trace_context
from kowalski.protocol.errors import ConfigError, RequestFailedError, RequestRefusedError
from kowalski.protocol.messages.base import Message

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanKind

FLUSH_MS = 2000
TOLD = ("language", "cell", "term", "model", "mode", "hash", "budget_tokens")
"""Fields of requests that a span tells; never what a prompt, a program or a text says."""


class Tracing(Protocol):
    """What rooms are wrapped with."""

    def answering(self, room: str, answer: Answer) -> Answer:
        """`answer`, told of as spans of `room`."""
        ...

    def serving(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[None]:
        """A request over HTTP, in the trace that its client names."""
        ...


class NoTracing:
    """Where nobody listens."""

    def answering(self, room: str, answer: Answer) -> Answer:
        del room
        return answer

    def serving(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[None]:
        del name, headers
        return nullcontext()


def task_trace_id(task: str) -> int:
    """The id of a task's trace: 128 bits, never 0."""
    return int.from_bytes(blake2b(task.encode(), digest_size=16).digest(), "big") or 1


@contextmanager
def open_tracing(endpoint: str | None, *, name: str, peer: str) -> Iterator[Tracing]:
    """Send spans to an OTLP collector (HTTP) for the length of the block; None: to nobody.

    Raises:
        ConfigError: the extra is not installed.
    """
    if endpoint is None:
        yield NoTracing()
        return
    if find_spec("opentelemetry.sdk") is None:
        raise ConfigError(
            "otlp_endpoint: traces need more packages: uv tool install 'kowalski-node[otel]'"
        )
    provider = _provider(endpoint, name, peer)
    try:
        yield OpenTelemetryTracing(provider)
    finally:
        provider.force_flush(FLUSH_MS)
        provider.shutdown()


forced_trace_id: ContextVar[int] = ContextVar("forced_trace_id", default=0)
"""Of the task that is worked for."""


def _provider(endpoint: str, name: str, peer: str) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.id_generator import IdGenerator  # noqa: PLC0415

    class Ids(IdGenerator):
        """Random ones, but that of the trace where a task is worked for."""

        def generate_span_id(self) -> int:
            return secrets.randbits(64) or 1

        def generate_trace_id(self) -> int:
            return forced_trace_id.get() or secrets.randbits(128) or 1

    resource = Resource.create(
        {
            "service.name": "kowalski-node",
            "service.version": __version__,
            "service.instance.id": peer,
            "host.name": name,
        }
    )
    provider = TracerProvider(resource=resource, id_generator=Ids(), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=5)
    # Its queue is bounded: what an absent collector does not take is dropped.
    provider.add_span_processor(
        BatchSpanProcessor(exporter, max_queue_size=2048, schedule_delay_millis=1000)
    )
    return provider


class OpenTelemetryTracing:
    """Made by `open_tracing`."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("kowalski", __version__)

    def answering(self, room: str, answer: Answer) -> Answer:
        """See `Tracing.answering`."""

        async def traced(conversation: Conversation, request: Message) -> Message:
            with self._span(f"{room} {request.KIND}", request, conversation.peer) as span:
                try:
                    return await answer(conversation, request)
                except RequestRefusedError as no:
                    span.set_attribute("kowalski.refused", no.reason)
                    raise
                except RequestFailedError as failure:
                    span.set_attribute("kowalski.failed", failure.code)
                    raise

        return traced

    @contextmanager
    def serving(self, name: str, headers: Mapping[str, str]) -> Iterator[None]:
        """See `Tracing.serving`."""
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        with self._opened(name, SpanKind.SERVER, headers.get("traceparent", ""), {}):
            yield

    @contextmanager
    def _span(self, name: str, request: Message, asker: str) -> Iterator[Span]:
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        attributes: dict[str, str | int | float | bool] = {"kowalski.asker": asker}
        for field in TOLD:
            value = getattr(request, field, None)
            if isinstance(value, str | int | float | bool):
                attributes[f"kowalski.{field}"] = value
        task = getattr(request, "task", None)
        parent = trace_context.get()
        if isinstance(task, str):
            attributes["kowalski.task"] = task
            if not parent.startswith(f"00-{task_trace_id(task):032x}-"):
                parent = ""
            forced_trace_id.set(task_trace_id(task))
        with self._opened(name, SpanKind.SERVER, parent, attributes) as span:
            yield span

    @contextmanager
    def _opened(
        self,
        name: str,
        kind: SpanKind,
        parent: str,
        attributes: Mapping[str, str | int | float | bool],
    ) -> Iterator[Span]:
        from opentelemetry import context as ambient  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        propagator = TraceContextTextMapPropagator()
        within = propagator.extract({"traceparent": parent} if parent else {}, ambient.Context())
        with self._tracer.start_as_current_span(
            name, within, kind=kind, attributes=attributes
        ) as span:
            told: dict[str, str] = {}
            propagator.inject(told)
            token = trace_context.set(told.get("traceparent", ""))
            try:
                yield span
            finally:
                trace_context.reset(token)
