"""HTTP/1.1 on h11 and trio: bounded, and with the client's hanging up as a cancellation.

Here connections are taken and counted, `connection` serves each. Which handler answers is decided
by whoever serves.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
import trio

from kowalski.node.http.connection import BodyRoom, Connection, Limits, Shared
from kowalski.node.http.exchange import Handler
from kowalski.node.http.hang_ups import HangUps
from kowalski.node.http.idling import Idling
from kowalski.protocol.errors import ConfigError

LOOK_S = 0.1
STOP_S = 2.0

log = structlog.get_logger(__name__)


class HttpServer:
    """Made by `open_http_server`."""

    def __init__(self, handler: Handler, limits: Limits, hang_ups: HangUps, idling: Idling) -> None:
        self._handler = handler
        self._limits = limits
        self._shared = Shared(limits, BodyRoom(limits.bodies_bytes), hang_ups, idling)
        self._connections: set[Connection] = set()
        self._open = 0
        self._open_of: dict[str, int] = {}

    @property
    def connections(self) -> int:
        return self._open

    async def until_answered(self) -> None:
        """Until no client waits for an answer; those that only listen do not count."""
        while any(one.is_answering for one in self._connections):  # noqa: ASYNC110 of many
            await trio.sleep(LOOK_S)

    async def stop(self) -> None:
        """Let each stream say how it ends, in two seconds at most; nothing more is answered."""
        self._shared.stopping.set()
        for connection in self._connections:
            connection.stop()
        with trio.move_on_after(STOP_S):
            while self._connections:  # noqa: ASYNC110 as above
                await trio.sleep(0.01)

    async def serve(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        """Accept until cancelled."""
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                if error.errno not in {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}:
                    raise
                log.warning("http-accept", error=str(error))
                await trio.sleep(0.1)  # until somebody closes a file
            else:
                nursery.start_soon(self._serve_connection, stream)

    async def _serve_connection(self, stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(OSError):  # it may be gone already
                client = str(stream.socket.getpeername()[0])
                server = str(stream.socket.getsockname()[0])
                connection = Connection(stream, client, self._shared, server=server)
                if self._shared.stopping.is_set() or not self._admits(client):
                    await connection.turn_away()
                    return
                self._open += 1
                self._connections.add(connection)
                self._open_of[client] = self._open_of.get(client, 0) + 1
                try:
                    await connection.serve(self._handler)
                except Exception:  # one connection must not end a node
                    log.exception("http-connection-died", client=client)
                finally:
                    self._open -= 1
                    self._connections.discard(connection)
                    self._open_of[client] -= 1
                    if not self._open_of[client]:
                        del self._open_of[client]

    def _admits(self, client: str) -> bool:
        if self._open >= self._limits.connections:
            return False
        is_ours = client in {"127.0.0.1", "::1"}
        return is_ours or self._open_of.get(client, 0) < self._limits.connections_of_one


@asynccontextmanager
async def open_http_server(
    host: str, port: int, handler: Handler, *, limits: Limits | None = None
) -> AsyncIterator[tuple[HttpServer, int]]:
    """Serve for the length of the block; gives the server and the port it listens on.

    Raises:
        ConfigError: the address is taken or cannot be listened on.
    """
    try:
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=1024)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"http_port {port} is in use on {host}; take another with --http-port, 0 for any"
            ) from error
        raise ConfigError(f"http_host {host}, http_port {port}: {error}") from error
    bound = int(listeners[0].socket.getsockname()[1])
    try:
        async with trio.open_nursery() as nursery:
            limits = limits or Limits()
            hang_ups, idling = HangUps(nursery), Idling(limits.idle_s)
            nursery.start_soon(hang_ups.run)
            nursery.start_soon(idling.run)
            server = HttpServer(handler, limits, hang_ups, idling)
            # Of a name with two addresses and port 0 the first one's port is the server's.
            for listener in listeners[:1] if port == 0 else listeners:
                nursery.start_soon(server.serve, listener, nursery)
            yield server, bound
            nursery.cancel_scope.cancel()
    finally:
        for listener in listeners:
            with suppress(OSError):
                listener.socket.close()
