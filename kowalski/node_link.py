"""Asking the running node, from any event loop that anyio knows: one connection a request.

The same lines as the command line's (`node.control_line`). Leaving early, by cancellation or an
error, hangs up, and the node then stops what it did for us; a task goes on.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.abc import SocketStream

from kowalski.errors import ConfigError, NetworkError, RLMError, of_code
from kowalski.node import control_line
from kowalski.protocol.errors import RemoteProtocolError
from kowalski.results import Json

CONNECT_S = 5.0
SILENCE_S = 30.0
_READ_BYTES = 1 << 16


def _unheard(_event: Json) -> None:
    pass


class NodeLink:
    """`path` is that of the node's control socket."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def ask(
        self,
        verb: str,
        request: Json | None = None,
        *,
        on_event: Callable[[Json], None] = _unheard,
        silence_s: float = SILENCE_S,
    ) -> Json:
        """The node's result; `on_event` hears what comes before it.

        Raises:
            NetworkError: no node runs here, it went away, or said nothing for `silence_s` seconds.
            ConfigError: a field is wrong, or the request is larger than 1 MiB.
            RLMError: the node said no; which kind depends on its code.
        """
        line = control_line.encode({"verb": verb, "request": dict(request or {})})
        if len(line) > control_line.REQUEST_BYTES_MAX:
            raise ConfigError(
                f"a request of {len(line)} bytes; at most {control_line.REQUEST_BYTES_MAX} fit"
            )
        try:
            async with self._connected() as stream:
                with anyio.fail_after(silence_s):
                    await stream.send(line)
                return await self._replies(stream, on_event, silence_s)
        except TimeoutError as error:
            raise NetworkError(f"the node said nothing for {silence_s:g} s") from error
        except (anyio.BrokenResourceError, anyio.EndOfStream, ConnectionError) as error:
            raise NetworkError("the node went away", code="gone") from error
        except RemoteProtocolError as error:
            raise NetworkError(f"what answers at {self.path} is no node: {error}") from error

    async def _replies(
        self, stream: SocketStream, on_event: Callable[[Json], None], silence_s: float
    ) -> Json:
        lines = control_line.LineBuffer(control_line.REPLY_BYTES_MAX)
        while True:
            while (line := lines.next_line()) is None:
                with anyio.fail_after(silence_s):
                    lines.feed(await stream.receive(_READ_BYTES))
            reply = control_line.decode(line)
            if isinstance(event := reply.get("event"), dict):
                on_event(event)
            elif isinstance(done := reply.get("done"), dict):
                return done
            else:
                raise _failure(reply.get("error"))

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[SocketStream]:
        try:
            if os.geteuid() not in {0, self.path.stat().st_uid}:
                raise ConfigError(f"control socket {self.path}: it belongs to somebody else")
            with anyio.fail_after(CONNECT_S):
                stream = await anyio.connect_unix(self.path)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
            raise NetworkError(
                f"no node is running at {self.path}: `kowalski-node start`, or build with"
                " with_own_node()",
                code="not_running",
            ) from error
        except OSError as error:
            raise NetworkError(f"control socket {self.path}: {error}") from error
        async with stream:
            yield stream


def _failure(error: object) -> RLMError:
    if not isinstance(error, dict):
        return NetworkError("the node answered with neither event, result nor error")
    message = str(error.get("message", "no reason given"))
    hint = error.get("hint")
    return of_code(str(error.get("code", "failed")), f"{message} ({hint})" if hint else message)
