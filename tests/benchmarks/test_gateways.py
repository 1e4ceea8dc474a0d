"""The client of the gateways' benchmark, held against the scripted server that all are asked by."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from benchmarks import asking
from benchmarks.asking import HELLO, STREAMED, AnswerError, Door, model_server
from benchmarks.environments import BY_NAME
from benchmarks.gateways import GATEWAYS, GatewayError, Plan, opened


def test_answers_and_streams_are_read_to_their_ends_on_one_connection() -> None:
    with model_server() as server:
        door = Door(server.port)

        async def ask() -> tuple[bytes, bytes, bytes]:
            async with await trio.open_tcp_stream("127.0.0.1", door.port) as stream:
                return (
                    await asking.ask(stream, door.request("ECHO: first")),
                    await asking.ask(stream, door.request(STREAMED, streams=True)),
                    await asking.ask(stream, door.request("ECHO: last")),
                )

        first, streamed, last = trio.run(ask)
        assert b'"content": "first"' in first
        assert streamed.count(b"data: ") >= 64
        assert b"[DONE]" in streamed
        assert b'"content": "last"' in last
        assert len(asking.taken_s(door, door.request(HELLO), 3)) == 3


def test_what_is_no_answer_is_an_error_and_counted_where_a_server_is_killed() -> None:
    with model_server() as server:
        door = Door(server.port)
        with pytest.raises(AnswerError, match="429"):
            asking.taken_s(door, door.request("FAULT: busy"), 1)
        seen = asking.while_killed(door, server.process.kill, seconds=2.0, at_s=1.0)
    assert seen.errors >= 4
    assert len(seen.taken_s) >= seen.errors


def test_a_gateway_that_ends_or_never_answers_is_told_with_its_last_words(tmp_path: Path) -> None:
    plan = Plan((("sh", "-c", "echo no licence >&2; exit 3"),), Door(1), {})
    with (
        pytest.raises(GatewayError, match=r"ended by itself.*no licence"),
        opened(plan, tmp_path),
    ):
        pass


def test_every_gateway_can_be_installed() -> None:
    assert set(GATEWAYS) <= set(BY_NAME)
