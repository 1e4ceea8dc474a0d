"""Asking a node over its control socket, on trio and on asyncio."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path

import anyio
import pytest
import trio

from kowalski import errors
from kowalski.node.control import Emit
from kowalski.node_link import NodeLink
from kowalski.protocol.errors import ConfigError, RequestRefusedError
from tests.kowalski.scripted_verbs import Reply, open_verbs


async def echo(request: Reply, emit: Emit) -> Reply:
    await emit({"kind": "note", "text": "thinking"})
    return request


async def refuse(request: Reply, _emit: Emit) -> Reply:
    raise RequestRefusedError(str(request["reason"]), "why", 2.0)


async def complain(_request: Reply, _emit: Emit) -> Reply:
    raise ConfigError("colour: not one of red, green")


async def sleep(_request: Reply, _emit: Emit) -> Reply:
    await trio.sleep_forever()
    raise AssertionError


VERBS = {"echo": echo, "refuse": refuse, "complain": complain, "sleep": sleep}


@pytest.mark.trio
async def test_events_come_before_the_result(tmp_path: Path) -> None:
    heard: list[object] = []
    async with open_verbs(tmp_path / "s", VERBS) as path:
        done = await NodeLink(path).ask("echo", {"text": "grüße\n"}, on_event=heard.append)
    assert done == {"text": "grüße\n"}
    assert heard == [{"kind": "note", "text": "thinking"}]


@pytest.mark.trio
async def test_a_no_is_an_error_of_its_kind(tmp_path: Path) -> None:
    async with open_verbs(tmp_path / "s", VERBS) as path:
        link = NodeLink(path)
        with pytest.raises(errors.NoDevicesAvailable, match="try again in 2 s") as refused:
            await link.ask("refuse", {"reason": "no_peer"})
        assert refused.value.code == "no_peer"
        with pytest.raises(errors.ConfigError, match="colour"):
            await link.ask("complain")
        with pytest.raises(errors.ConfigError, match="unknown verb"):
            await link.ask("dance")
        with pytest.raises(errors.ConfigError, match="at most"):
            await link.ask("echo", {"text": "x" * (1 << 20)})


@pytest.mark.trio
async def test_a_node_that_is_silent_is_given_up(tmp_path: Path) -> None:
    async with open_verbs(tmp_path / "s", VERBS) as path:
        with pytest.raises(errors.NetworkError, match=r"nothing for 0\.05 s"):
            await NodeLink(path).ask("sleep", silence_s=0.05)


@pytest.mark.trio
async def test_giving_up_hangs_up_and_the_node_stops(tmp_path: Path) -> None:
    stopped = trio.Event()

    async def work(_request: Reply, _emit: Emit) -> Reply:
        try:
            await trio.sleep_forever()
        finally:
            stopped.set()
        raise AssertionError

    async with open_verbs(tmp_path / "s", {"work": work}) as path:
        with anyio.move_on_after(0.05):
            await NodeLink(path).ask("work")
        with trio.fail_after(10):
            await stopped.wait()


@pytest.mark.trio
async def test_without_a_node_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(errors.NetworkError, match="kowalski-node start") as missing:
        await NodeLink(tmp_path / "s").ask("status")
    assert missing.value.code == "not_running"


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"", "went away"),
        (b'{"event":{}}\n', "went away"),
        (b"HTTP/1.1 400\n", "is no node"),
        (b"{}\n", "neither event, result nor error"),
    ],
)
def test_on_asyncio_too_what_answers_badly_is_an_error(
    tmp_path: Path, reply: bytes, words: str
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        listener.settimeout(10)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(errors.NetworkError, match=words):
            asyncio.run(NodeLink(tmp_path / "s").ask("status"))
        thread.join(10)
