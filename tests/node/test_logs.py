"""Log lines: their form, and what never appears in them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import structlog

from kowalski.node.logs import configure_logging, redact


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_has_time_level_event_and_fields(stream: io.StringIO) -> None:
    configure_logging("info", "json", stream=stream)
    structlog.get_logger("x").warning("peer.lost", peer="P", rtt_ms=1.5)
    (line,) = lines(stream)
    assert line["timestamp"].endswith("Z")
    del line["timestamp"]
    assert line == {"level": "warning", "event": "peer.lost", "peer": "P", "rtt_ms": 1.5}


def test_a_pretty_line_reads_in_that_order(stream: io.StringIO) -> None:
    configure_logging("info", "pretty", stream=stream)
    structlog.get_logger("x").info("peer.lost", peer="P", why="it is gone")
    time, level, event, *rest = stream.getvalue().split(maxsplit=3)
    assert time.endswith("Z")
    assert (level, event, rest) == ("info", "peer.lost", ['peer=P why="it is gone"\n'])


def test_lines_below_the_level_are_not_written(stream: io.StringIO) -> None:
    configure_logging("warning", "json", stream=stream)
    structlog.get_logger("x").info("quiet")
    structlog.get_logger("x").error("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]


def test_libraries_come_out_in_the_same_form_from_warning_up(stream: io.StringIO) -> None:
    configure_logging("debug", "json", stream=stream)
    logging.getLogger("zeroconf").info("chatter")
    logging.getLogger("zeroconf").warning("%s stream%s", 3, "s")
    (line,) = lines(stream)
    assert (line["event"], line["logger"], line["level"]) == (
        "3 streams",
        "zeroconf",
        "warning",
    )


def test_a_traceback_is_one_json_line(stream: io.StringIO) -> None:
    configure_logging("info", "json", stream=stream)
    structlog.get_logger("x").error("verb.failed", exc_info=ZeroDivisionError("oh"))
    (line,) = lines(stream)
    assert "ZeroDivisionError: oh" in line["exception"]


@pytest.mark.parametrize("form", ["pretty", "json"])
def test_what_a_peer_said_moves_no_cursor_and_makes_no_line(
    form: Literal["pretty", "json"], stream: io.StringIO
) -> None:
    configure_logging("info", form, stream=stream)
    structlog.get_logger("x").info("peer.said", text="a\x1b[2J\nb\r\x9b", event_text="ü\u202e")
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()


def test_a_value_without_end_is_cut(stream: io.StringIO) -> None:
    configure_logging("info", "json", stream=stream)
    structlog.get_logger("x").info("peer.said", text="x" * 1_000_000)
    assert len(stream.getvalue()) < 10_000


def test_secrets_are_replaced_wherever_they_hide() -> None:
    fields: dict[str, Any] = {
        "event": "start",
        "api_key": "hush",
        "join": "hush",
        "config": {"Authorization": "hush", "inner": [{"access_token": "hush"}]},
        "tokens": 7,
        "has_key": True,
    }
    shown = redact(None, "info", fields)
    assert "hush" not in repr(shown)
    assert shown["tokens"] == 7
    assert shown["has_key"] is True


def test_secrets_do_not_reach_the_stream(stream: io.StringIO) -> None:
    configure_logging("info", "json", stream=stream)
    structlog.get_logger("x").info("start", api_key="hush")
    assert "hush" not in stream.getvalue()


def test_a_stream_that_is_gone_does_not_end_the_node(stream: io.StringIO) -> None:
    configure_logging("info", "pretty", stream=stream)
    stream.close()
    structlog.get_logger("x").info("still.here")
    logging.getLogger("x").warning("still here")
