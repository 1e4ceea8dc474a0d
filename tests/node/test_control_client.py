"""The blocking side of the control socket, against a scripted other side."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kowalski.node.control_client import (
    NodeGoneError,
    NodeNotRunningError,
    VerbFailedError,
    converse,
)
from kowalski.protocol.errors import ConfigError, KowalskiError, RemoteProtocolError


@contextmanager
def answering(path: Path, *replies: bytes) -> Iterator[list[bytes]]:
    """A listener that takes one connection, reads one line, sends the replies and closes."""
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(10)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as lines:
                heard.append(lines.readline())
                for reply in replies:
                    connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield heard
        thread.join(10)


def nothing(_: dict[str, object]) -> None:
    pytest.fail("no event was expected")


def test_a_request_is_one_line_and_replies_may_come_in_pieces(tmp_path: Path) -> None:
    events: list[dict[str, object]] = []
    replies = (b'{"event":{"n"', b':1}}\n{"event":{"n":2}}\n{"do', b'ne":{"ok":true}}\n')
    with answering(tmp_path / "s", *replies) as heard:
        done = converse(tmp_path / "s", "echo", {"a": "\n"}, on_event=events.append)
    assert heard == [b'{"verb":"echo","request":{"a":"\\n"}}\n']
    assert events == [{"n": 1}, {"n": 2}]
    assert done == {"ok": True}


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"", NodeGoneError),
        (b'{"done":{', NodeGoneError),
        (b"HTTP/1.1 400 Bad Request\r\n", RemoteProtocolError),
        (b"{}\n", RemoteProtocolError),
        (b'{"done":7}\n', RemoteProtocolError),
        (b'{"error":{}}\n', VerbFailedError),
    ],
)
def test_an_answer_that_is_none_is_a_typed_error(
    tmp_path: Path, reply: bytes, error: type[KowalskiError]
) -> None:
    with answering(tmp_path / "s", reply), pytest.raises(error):
        converse(tmp_path / "s", "echo", {}, on_event=nothing)


def test_an_error_carries_its_exit_code_and_hint(tmp_path: Path) -> None:
    reply = b'{"error":{"code":"busy","message":"full","exit_code":5,"hint":"wait"}}\n'
    with answering(tmp_path / "s", reply), pytest.raises(VerbFailedError, match="full") as caught:
        converse(tmp_path / "s", "echo", {}, on_event=nothing)
    assert (caught.value.code, caught.value.exit_code, caught.value.hint) == ("busy", 5, "wait")


def test_an_answer_is_read_though_the_request_was_not(tmp_path: Path) -> None:
    reply = b'{"error":{"code":"busy","message":"full","exit_code":5,"hint":null}}\n'
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(reply)

        thread = threading.Thread(target=refuse)
        thread.start()
        # More than the socket holds, so that sending it cannot end before the other side closes.
        with pytest.raises(VerbFailedError, match="full"):
            converse(tmp_path / "s", "echo", {"text": "x" * 1_000_000}, on_event=nothing)
        thread.join(10)


def test_nobody_there_is_not_running(tmp_path: Path) -> None:
    with pytest.raises(NodeNotRunningError):
        converse(tmp_path / "s", "echo", {}, on_event=nothing)


def test_what_a_dead_node_left_is_not_running(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    with pytest.raises(NodeNotRunningError):
        converse(tmp_path / "s", "echo", {}, on_event=nothing)


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that every user of this machine can enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_socket_of_somebody_else_is_not_spoken_to(open_dir: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a file away needs root")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(open_dir / "s"))
        listener.listen()
        os.chown(open_dir / "s", 12345, 12345)
        (open_dir / "s").chmod(0o777)
        os.seteuid(23456)
        try:
            with pytest.raises(ConfigError, match="somebody else"):
                converse(open_dir / "s", "echo", {}, on_event=nothing)
        finally:
            os.seteuid(0)
