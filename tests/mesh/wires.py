"""Real transports on 127.0.0.1 for tests, and a wire between them that can be stopped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import trio

from kowalski.mesh.identity import Identity, new_identity
from kowalski.mesh.libp2p_transport import Libp2pTransport, open_libp2p_transport
from kowalski.mesh.transport import Gossip, Stream
from kowalski.protocol.ids import Address, PeerId, Topic

LOOPBACK = (Address("/ip4/127.0.0.1/tcp/0"),)
ECHO = "/kowalski-test/echo/1"
TOPIC = Topic("kowalski/test/things")

PATIENCE_S = 20.0
"""Whatever a test waits for comes at once or not at all; but the machine may be busy."""


def everybody(peer: PeerId) -> bool:
    return True


async def echo(stream: Stream) -> None:
    while data := await stream.receive():
        await stream.send(data)


@asynccontextmanager
async def transports(
    count: int,
    **options: Any,  # noqa: ANN401 of open_libp2p_transport
) -> AsyncIterator[list[Libp2pTransport]]:
    """`count` transports that answer `ECHO`, to everybody, not connected yet."""
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(count):
            transport = await stack.enter_async_context(
                open_libp2p_transport(new_identity(), listen=LOOPBACK, **options)
            )
            transport.serve(ECHO, echo, to_strangers=True)
            opened.append(transport)
        yield opened


@asynccontextmanager
async def one_transport(
    identity: Identity | None = None,
    **options: Any,  # noqa: ANN401 of open_libp2p_transport
) -> AsyncIterator[Libp2pTransport]:
    async with open_libp2p_transport(
        identity or new_identity(), **{"listen": LOOPBACK, **options}
    ) as transport:
        transport.serve(ECHO, echo, to_strangers=True)
        yield transport


async def join(one: Libp2pTransport, *others: Libp2pTransport) -> None:
    """Connect `one` to each of the others, as members; returns when both ends know."""
    for other in others:
        await one.connect(other.peer, other.addresses[0], timeout_s=5)
        await eventually(lambda other=other: one.peer in other.connections)
        one.admit(other.peer)
        other.admit(one.peer)


async def eventually(holds: Callable[[], bool], *, within_s: float = PATIENCE_S) -> None:
    with trio.fail_after(within_s):
        while not holds():  # noqa: ASYNC110 nothing else tells of it
            await trio.sleep(0.01)


async def publish_until_heard(
    publish: Callable[[], Awaitable[None]], channel: trio.MemoryReceiveChannel[Gossip]
) -> Gossip:
    """Gossip is best effort, and a mesh takes a moment to form: say it again until it is heard."""
    with trio.fail_after(PATIENCE_S):
        while True:
            await publish()
            with trio.move_on_after(0.1):
                return await channel.receive()


async def receive_exactly(stream: Stream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await stream.receive()
        assert piece, f"ended after {len(data)} bytes"
        data += piece
    return data


async def ask_echo(transport: Libp2pTransport, peer: PeerId, data: bytes = b"anybody?") -> None:
    """Fail unless `peer` answers on a fresh stream."""
    with trio.fail_after(PATIENCE_S):
        stream = await transport.open_stream(peer, ECHO, timeout_s=5)
        await stream.send(data)
        assert await receive_exactly(stream, len(data)) == data
        await stream.finish()
        assert await stream.receive() == b""


class Wire:
    """A TCP forwarder that can be stopped and started: packets wait, no connection ends."""

    def __init__(self, target: tuple[str, int], port: int, source: str) -> None:
        self._target = target
        self._source = source
        self._flows = self._answers_flow = trio.Event()
        self.start()
        self.address = Address(f"/ip4/127.0.0.1/tcp/{port}")

    def stop(self) -> None:
        self._flows = self._answers_flow = trio.Event()

    def stop_answers(self) -> None:
        """Stop the direction that leads back to the dialler."""
        self._answers_flow = trio.Event()

    def start(self) -> None:
        self._flows.set()
        self._answers_flow.set()

    async def carry(self, near: trio.SocketStream) -> None:
        far = await trio.open_tcp_stream(*self._target, local_address=self._source)
        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(self._pour, near, far, lambda: self._flows)
            nursery.start_soon(self._pour, far, near, lambda: self._answers_flow)

    async def _pour(
        self,
        source: trio.SocketStream,
        sink: trio.SocketStream,
        flows: Callable[[], trio.Event],
    ) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await source.receive_some(65536):
                await flows().wait()
                await sink.send_all(data)
            await sink.send_eof()


@asynccontextmanager
async def wire_to(
    listener_address: Libp2pTransport | str, *, source: str = "127.0.0.1"
) -> AsyncIterator[Wire]:
    """A wire to a transport or to `/ip4/127.0.0.1/tcp/PORT`, which sees it come from `source`."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        if isinstance(listener_address, Libp2pTransport):
            listener_address = listener_address.addresses[0]
        wire = Wire(("127.0.0.1", int(listener_address.split("/")[4])), port, source)
        nursery.start_soon(trio.serve_listeners, wire.carry, [listener])
        yield wire
        nursery.cancel_scope.cancel()
