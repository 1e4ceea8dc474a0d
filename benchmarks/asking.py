"""Clients of chat completions, and the scripted model server that answers them at once.

Raw HTTP on trio: the client is to cost less than what it measures. Whoever is asked is a `Door`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

ANSWER_S_MAX = 60.0
HELLO = "hello there"
STREAMED = "TOKENS: 64"
SLOW = "DELAY: 0.2\nTOKENS: 3"
"""An answer that takes 0.6 s: long enough to lose who gives it."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where chat completions are asked for, with the headers that it wants."""

    port: int
    model: str = "m"
    headers: tuple[tuple[str, str], ...] = ()

    def request(self, prompt: str, *, streams: bool = False) -> bytes:
        """All bytes of one request."""
        asked = {"model": self.model, "messages": [{"role": "user", "content": prompt}]}
        body = json.dumps({**asked, "stream": True} if streams else asked).encode()
        head = [
            "POST /v1/chat/completions HTTP/1.1",
            "Host: 127.0.0.1",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        return "\r\n".join([*head, "", ""]).encode() + body


class AnswerError(Exception):
    """Something else than an answer came, or nothing."""


async def ask(stream: trio.SocketStream, request: bytes) -> bytes:
    """One request on an open connection; its body, the chunks of which are left as they are.

    Raises:
        AnswerError: the status is not 200, or the connection ended.
    """
    await stream.send_all(request)
    data = b""
    while b"\r\n\r\n" not in data:
        data += await _more(stream)
    told, _, rest = data.partition(b"\r\n\r\n")
    if not told.startswith(b"HTTP/1.1 200"):
        raise AnswerError(data[:300].decode(errors="replace"))
    lower = told.lower()
    if b"content-length: " in lower:
        length = int(lower.split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(rest) < length:
            rest += await _more(stream)
    else:
        while not rest.endswith(b"0\r\n\r\n"):
            rest += await _more(stream)
    return rest


async def _more(stream: trio.SocketStream) -> bytes:
    data = await stream.receive_some(65536)
    if not data:
        raise AnswerError("the connection was closed")
    return bytes(data)


def taken_s(door: Door, request: bytes, count: int) -> list[float]:
    """Seconds of each of so many requests, one after the other on one connection."""

    async def one_by_one() -> list[float]:
        async with await trio.open_tcp_stream("127.0.0.1", door.port) as stream:
            taken = []
            for _ in range(count):
                began = time.perf_counter()
                with trio.fail_after(ANSWER_S_MAX):
                    await ask(stream, request)
                taken.append(time.perf_counter() - began)
            return taken

    return trio.run(one_by_one)


def at_a_time(connections: int, door: Door, request: bytes, seconds: float) -> int:
    """How many are answered in so many seconds, each connection asking again and again."""

    async def main() -> int:
        count = 0

        async def one() -> None:
            nonlocal count
            async with await trio.open_tcp_stream("127.0.0.1", door.port) as stream:
                while True:
                    await ask(stream, request)
                    count += 1

        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for _ in range(connections):
                    nursery.start_soon(one)
        return count

    return trio.run(main)


@dataclass(slots=True)
class Meanwhile:
    """What clients saw: errors, and how long each request took."""

    errors: int
    taken_s: list[float]


def while_killed(
    door: Door, kill: Callable[[], object], *, seconds: float = 10.0, at_s: float = 3.0
) -> Meanwhile:
    """Four clients ask for slow answers all the time; `kill` is called in the middle."""
    return trio.run(_while_killed, door, kill, seconds, at_s)


async def _while_killed(
    door: Door, kill: Callable[[], object], seconds: float, at_s: float
) -> Meanwhile:
    seen = Meanwhile(0, [])
    request = door.request(SLOW)

    async def client() -> None:
        while True:
            began = time.perf_counter()
            try:
                async with await trio.open_tcp_stream("127.0.0.1", door.port) as stream:
                    await ask(stream, request)
            except (AnswerError, OSError, trio.BrokenResourceError):
                seen.errors += 1
            seen.taken_s.append(time.perf_counter() - began)

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(client)
            await trio.sleep(at_s)
            await trio.to_thread.run_sync(kill)
            await trio.sleep_forever()
    return seen


async def until_answered(
    door: Door, request: bytes, seconds: float, is_alive: Callable[[], bool]
) -> str:
    """Ask until there is an answer; why there is none in the end, empty if there is one."""
    why = "it does not listen"
    with trio.move_on_after(seconds):
        while is_alive():
            try:
                async with await trio.open_tcp_stream("127.0.0.1", door.port) as stream:
                    await ask(stream, request)
            except (AnswerError, OSError, trio.BrokenResourceError) as error:
                why = str(error)
            else:
                return ""
            await trio.sleep(0.1)
        return f"it ended by itself; {why}"
    return f"no answer within {seconds:.0f} s: {why}"


@dataclass(frozen=True, slots=True)
class ModelServer:
    port: int
    process: subprocess.Popen[bytes]
    slots: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def backend(self) -> str:
        """Where it is, and what its API does not tell: how much it does at once."""
        return f"{self.url}?slots={self.slots}"


def stats_of(url: str) -> dict[str, int]:
    """What the scripted server there has counted."""
    with urllib.request.urlopen(f"{url}/stats", timeout=10) as reply:
        found: dict[str, int] = json.load(reply)
    return found


@contextmanager
def model_server(*options: str, model: str = "m", slots: int = 64) -> Iterator[ModelServer]:
    """A scripted one that answers at once, a process of its own."""
    command = [sys.executable, "-m", "tests.scripted_model_server", "--model", model]
    server = subprocess.Popen([*command, "--slots", str(slots), *options], stdout=subprocess.PIPE)
    assert server.stdout is not None
    with server.stdout:
        try:
            port = int(json.loads(server.stdout.readline())["url"].rpartition(":")[2])
            yield ModelServer(port, server, slots)
        finally:
            server.kill()
            server.wait()
