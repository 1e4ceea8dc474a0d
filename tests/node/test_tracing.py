"""Spans of what a node answers, as a collector gets them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from kowalski.mesh.conversation import Conversation
from kowalski.mesh.tracing import trace_context
from kowalski.node.tracing import NoTracing, open_tracing, task_trace_id
from kowalski.protocol.errors import ConfigError, RequestRefusedError
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.base import Cancel, Message
from kowalski.protocol.messages.repl import CellAsked
from tests.otlp_collector import Collector

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector().serving() as found:
        yield found


def test_without_an_endpoint_nothing_is_told() -> None:
    with open_tracing(None, name="a", peer="p") as tracing:
        assert isinstance(tracing, NoTracing)
        with tracing.serving("GET /", {}):
            pass


def test_without_the_extra_the_operator_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kowalski.node.tracing.find_spec", lambda _name: None)
    with (
        pytest.raises(ConfigError, match=r"kowalski-node\[otel\]"),
        open_tracing("http://127.0.0.1:4318", name="a", peer="p"),
    ):
        pass


def test_a_request_over_http_is_a_span_in_its_clients_trace(collector: Collector) -> None:
    with (
        open_tracing(collector.url, name="minipc", peer="p") as tracing,
        tracing.serving("POST /tasks", {"traceparent": PARENT}),
    ):
        pass
    ((node, span),) = collector.spans
    assert (node, span.name) == ("minipc", "POST /tasks")
    assert span.trace_id.hex() == TRACE
    assert span.parent_span_id.hex() == "b7ad6b7169203331"


@pytest.mark.parametrize("header", ["", "nonsense", "00-0-0-00", "\ud800"])
def test_a_header_that_is_no_trace_begins_a_new_one(collector: Collector, header: str) -> None:
    with (
        open_tracing(collector.url, name="minipc", peer="p") as tracing,
        tracing.serving("GET /", {"traceparent": header}),
    ):
        pass
    ((_, span),) = collector.spans
    assert span.parent_span_id == b""


def test_an_absent_collector_costs_nothing_but_the_spans() -> None:
    with (
        open_tracing("http://127.0.0.1:1", name="a", peer="p") as tracing,
        tracing.serving("GET /", {}),
    ):
        pass


class Asking:
    """The answering side of a request, as far as spans look at it."""

    peer = PeerId("asker")
    is_taken_back = False

    async def send(self, message: Message) -> None:
        raise NotImplementedError

    async def receive(self) -> Message:
        raise NotImplementedError


CELL = CellAsked(
    task=TaskId("01M83QWMJNB2EXMBE293VXKR57"),
    term=1,
    cell=3,
    language="python",
    code="the secret program",
    timeout_s=1.0,
    remaining_s=1.0,
)


@pytest.mark.trio
async def test_what_is_about_a_task_is_in_its_trace_and_tells_no_program(
    collector: Collector,
) -> None:
    seen: list[str] = []

    async def answer(_conversation: Conversation, _request: Message) -> Message:
        await trio.lowlevel.checkpoint()
        seen.append(trace_context.get())
        return Cancel()

    trace_context.set(PARENT)
    with open_tracing(collector.url, name="a", peer="p") as tracing:
        await tracing.answering("/repl", answer)(Asking(), CELL)
        trace_context.set(seen[0])
        await tracing.answering("/repl", answer)(Asking(), CELL)
    (_, first), (_, second) = collector.spans
    assert first.trace_id == second.trace_id == task_trace_id(CELL.task).to_bytes(16, "big")
    assert (first.parent_span_id, second.parent_span_id) == (b"", first.span_id)
    assert seen[0] == f"00-{first.trace_id.hex()}-{first.span_id.hex()}-01"
    assert trace_context.get() == seen[0]
    told = {one.key: one.value for one in first.attributes}
    assert told["kowalski.task"].string_value == CELL.task
    assert told["kowalski.cell"].int_value == 3
    assert "secret" not in str(first)


@pytest.mark.trio
async def test_what_is_not_about_a_task_stays_in_the_trace_of_who_asked(
    collector: Collector,
) -> None:
    async def refuse(_conversation: Conversation, _request: Message) -> Message:
        await trio.lowlevel.checkpoint()
        raise RequestRefusedError("busy", "full")

    trace_context.set(PARENT)
    with (
        open_tracing(collector.url, name="a", peer="p") as tracing,
        pytest.raises(RequestRefusedError),
    ):
        await tracing.answering("/fold", refuse)(Asking(), Cancel())
    ((_, span),) = collector.spans
    assert span.trace_id.hex() == TRACE
    told = {one.key: one.value.string_value for one in span.attributes}
    assert told["kowalski.refused"] == "busy"
