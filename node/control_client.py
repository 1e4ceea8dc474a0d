"""Asking the running node, from a plain blocking program: the command line's side of the socket.

Standard library only, because it is on the path of every command. A request goes out as one line;
closing the connection early cancels it at the node.
"""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager, suppress
from threading import Lock
from typing import TYPE_CHECKING

from kowalski.node import control_line
from kowalski.protocol.errors import ConfigError, KowalskiError, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_READ_BYTES = 1 << 16


class NodeNotRunningError(KowalskiError):
    """Nobody listens at the control socket."""


class NodeGoneError(KowalskiError):
    """The node fell silent, or went away in the middle of the conversation."""


class VerbFailedError(KowalskiError):
    """The node said no; `exit_code` is what it wants the command to end with."""

    def __init__(self, code: str, message: str, exit_code: int, hint: str | None) -> None:
        super().__init__(message)
        self.code = code
        self.exit_code = exit_code
        self.hint = hint


class HangingUp:
    """A way for another thread to end a `converse`, which then raises `NodeGoneError`."""

    def __init__(self) -> None:
        self._turn = Lock()
        self._connection: socket.socket | None = None
        self.is_asked = False

    def hold(self, connection: socket.socket) -> None:
        with self._turn:
            self._connection = connection
            if self.is_asked:
                self._shut()

    def ask(self) -> None:
        with self._turn:
            self.is_asked = True
            self._shut()

    def _shut(self) -> None:
        if self._connection is not None:
            with suppress(OSError):  # it is closed: the answer was there first
                self._connection.shutdown(socket.SHUT_RDWR)


def converse(
    path: Path,
    verb: str,
    request: Mapping[str, object],
    *,
    on_event: Callable[[dict[str, object]], None],
    silence_s: float = 30.0,
    hanging_up: HangingUp | None = None,
) -> dict[str, object]:
    """Ask the node at `path` and return its result; `on_event` hears what comes before it.

    Interrupting it (KeyboardInterrupt) closes the connection, which cancels the request;
    `hanging_up` lets another thread do so.

    Raises:
        NodeNotRunningError: nobody listens.
        NodeGoneError: it closed the connection, or said nothing for `silence_s` seconds.
        VerbFailedError: it answered with an error.
        RemoteProtocolError: what answers is no node.
        ConfigError: the request is larger than the socket takes, or the socket is not ours.
    """
    line = control_line.encode({"verb": verb, "request": dict(request)})
    if len(line) > control_line.REQUEST_BYTES_MAX:
        raise ConfigError(
            f"a request of {len(line)} bytes; at most {control_line.REQUEST_BYTES_MAX} fit"
        )
    with _connected(path) as connection:
        connection.settimeout(silence_s)
        if hanging_up is not None:
            hanging_up.hold(connection)
        lines = control_line.LineBuffer(control_line.REPLY_BYTES_MAX)
        # A node may answer without having read it all (busy, or a line too long), and close: the
        # answer can be read all the same.
        with _weather(silence_s), suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(line)
        while True:
            with _weather(silence_s):
                reply = control_line.decode(_next_line(connection, lines))
            if isinstance(event := reply.get("event"), dict):
                on_event(event)
            elif isinstance(done := reply.get("done"), dict):
                return done
            else:
                raise _failure(reply.get("error"))


@contextmanager
def _weather(silence_s: float) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise NodeGoneError(f"the node said nothing for {silence_s:g} s") from error
    except (BrokenPipeError, ConnectionResetError) as error:
        raise NodeGoneError("the node went away") from error


def _connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _check_owner(path)
        connection.settimeout(5.0)
        connection.connect(bytes(path))
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
        connection.close()
        raise NodeNotRunningError(f"no node is running at {path}") from error
    except OSError as error:
        connection.close()
        raise ConfigError(f"control socket {path}: {error.strerror or error}") from error
    except ConfigError:
        connection.close()
        raise
    return connection


def _check_owner(path: Path) -> None:
    # A socket in a place that others can write to might be somebody else's trap.
    if os.geteuid() not in {0, path.stat().st_uid}:
        raise ConfigError(f"control socket {path}: it belongs to somebody else")


def _next_line(connection: socket.socket, lines: control_line.LineBuffer) -> bytes:
    while (line := lines.next_line()) is None:
        data = connection.recv(_READ_BYTES)
        if not data:
            raise NodeGoneError("the node went away")
        lines.feed(data)
    return line


def _failure(error: object) -> KowalskiError:
    if not isinstance(error, dict):
        return RemoteProtocolError("the node answered with neither event, result nor error")
    exit_code, hint = error.get("exit_code"), error.get("hint")
    return VerbFailedError(
        str(error.get("code", "failed")),
        str(error.get("message", "no reason given")),
        exit_code if isinstance(exit_code, int) else int(control_line.ExitCode.FAILED),
        hint if isinstance(hint, str) else None,
    )
