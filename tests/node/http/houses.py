"""A server on a real socket of this machine, for tests of what clients may do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio

from kowalski.node.http.connection import Limits
from kowalski.node.http.exchange import Exchange, HeadToldError, HttpError, Response
from kowalski.node.http.server import HttpServer, open_http_server

PATIENCE_S = 20.0


class House:
    """A server whose handler does what the path says."""

    def __init__(self) -> None:
        self.began = trio.Event()
        self.cancelled = trio.Event()
        self.may_go_on = trio.Event()
        self.port = 0
        self.server: HttpServer

    async def handle(self, exchange: Exchange) -> None:
        with suppress(HeadToldError):
            await self._handle(exchange)

    async def _handle(self, exchange: Exchange) -> None:
        match exchange.request.path:
            case "/echo":
                await exchange.answer(Response(200, await exchange.body(1000), "text/plain"))
            case "/stream":
                await exchange.begin(200, [("content-type", "text/plain")])
                for number in range(3):
                    await exchange.send(f"{number};".encode())
                await exchange.end()
            case "/wait":
                self.began.set()
                try:
                    await trio.sleep_forever()
                finally:
                    self.cancelled.set()
            case "/a-while":
                self.began.set()
                await self.may_go_on.wait()
                await exchange.answer(Response(200, b"waited", "text/plain"))
            case "/begin-and-fail":
                await exchange.begin(200, [])
                await exchange.send(b"some")
                raise HttpError(502, "lost", "in the middle")
            case "/begin-and-leave":
                await exchange.begin(200, [])
                await exchange.send(b"all")
            case "/tell":
                await exchange.begin(200, [])
                self.began.set()
                try:
                    with exchange.until_stopping():
                        while True:
                            await exchange.send(b"more;")
                            await trio.sleep(0.01)
                except HttpError as no:
                    await exchange.end(no.code.encode())
            case "/bug":
                raise ZeroDivisionError
            case "/flood":
                await exchange.begin(200, [])
                while True:
                    await exchange.send(bytes(1 << 20))
            case _:
                raise HttpError(404, "not_found", "nothing here", headers=(("x-why", "ümlaut\n"),))


@asynccontextmanager
async def open_house(**limits: float) -> AsyncIterator[House]:
    house = House()
    found = Limits(**limits)  # type: ignore[arg-type]
    opened = open_http_server("127.0.0.1", 0, house.handle, limits=found)
    async with opened as (server, port):
        house.port, house.server = port, server
        yield house


@asynccontextmanager
async def connected(house: House) -> AsyncIterator[trio.SocketStream]:
    with trio.fail_after(PATIENCE_S):
        async with await trio.open_tcp_stream("127.0.0.1", house.port) as stream:
            yield stream


async def read_all(stream: trio.SocketStream) -> bytes:
    data = b""
    while piece := await stream.receive_some(65536):
        data += piece
    return data


async def read_until(stream: trio.SocketStream, mark: bytes) -> bytes:
    data = b""
    while mark not in data:
        piece = await stream.receive_some(65536)
        assert piece, data
        data += piece
    return data


async def said(house: House, request: bytes) -> bytes:
    """What comes back, up to the end of the connection."""
    async with connected(house) as stream:
        await stream.send_all(request)
        return await read_all(stream)


GET = b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
