"""The control socket, for real: what an asker sees, and what a node survives."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from kowalski.node.control import (
    Emit,
    Limits,
    Listening,
    Verb,
    claim_data_dir,
    error_reply,
    serve_control,
)
from kowalski.node.control_client import (
    NodeGoneError,
    NodeNotRunningError,
    VerbFailedError,
    converse,
)
from kowalski.protocol.errors import (
    ConfigError,
    KowalskiError,
    PeerUnreachableError,
    RequestFailedError,
    RequestRefusedError,
)

pytestmark = pytest.mark.trio


@asynccontextmanager
async def serving(
    path: Path, verbs: Mapping[str, Verb], limits: Limits | None = None
) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:

        async def serve(task_status: Listening = trio.TASK_STATUS_IGNORED) -> None:
            await serve_control(path, verbs, limits=limits, task_status=task_status)

        await nursery.start(serve)
        yield
        nursery.cancel_scope.cancel()


async def ask(
    path: Path, verb: str, request: dict[str, object]
) -> tuple[list[dict[str, object]], dict[str, object]]:
    events: list[dict[str, object]] = []

    def blocking() -> dict[str, object]:
        return converse(path, verb, request, on_event=events.append, silence_s=10.0)

    return events, await trio.to_thread.run_sync(blocking)


async def raw_reply(path: Path, sent: bytes) -> dict[str, Any]:
    stream = await trio.open_unix_socket(str(path))
    async with stream:
        await stream.send_all(sent)
        received = b""
        while data := await stream.receive_some():
            received += data
    reply = json.loads(received)
    assert isinstance(reply, dict)
    return reply


async def echo(request: dict[str, object], emit: Emit) -> dict[str, object]:
    for n in range(3):
        await emit({"n": n})
    return request


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


async def test_events_come_in_order_and_then_the_result(path: Path) -> None:
    async with serving(path, {"echo": echo}):
        events, done = await ask(path, "echo", {"text": "ünïcode \ud800 \n"})
    assert events == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert done == {"text": "ünïcode \ud800 \n"}


async def test_only_the_owner_may_enter(path: Path) -> None:
    path.parent.mkdir(mode=0o755)
    async with serving(path, {}):
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


async def test_hanging_up_cancels_the_verb(path: Path) -> None:
    begun, cancelled = trio.Event(), trio.Event()

    async def endless(request: dict[str, object], emit: Emit) -> dict[str, object]:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with serving(path, {"endless": endless}):
        stream = await trio.open_unix_socket(str(path))
        await stream.send_all(b'{"verb":"endless"}\n')
        await begun.wait()
        await stream.aclose()
        with trio.fail_after(5):
            await cancelled.wait()


async def test_a_verb_that_talks_to_nobody_is_cancelled(path: Path) -> None:
    ended = trio.Event()

    async def chatter(request: dict[str, object], emit: Emit) -> dict[str, object]:
        try:
            while True:
                await emit({"text": "x" * 10_000})
        finally:
            ended.set()

    async with serving(path, {"chatter": chatter}):
        stream = await trio.open_unix_socket(str(path))
        await stream.send_all(b'{"verb":"chatter"}\n')
        await stream.receive_some(10)
        await stream.aclose()
        with trio.fail_after(5):
            await ended.wait()


async def test_an_asker_that_stops_reading_is_hung_up_on(path: Path) -> None:
    ended = trio.Event()

    async def chatter(request: dict[str, object], emit: Emit) -> dict[str, object]:
        try:
            while True:
                await emit({"text": "x" * 10_000})
        finally:
            ended.set()

    async with serving(path, {"chatter": chatter}, Limits(write_timeout_s=0.05)):
        stream = await trio.open_unix_socket(str(path))
        async with stream:
            await stream.send_all(b'{"verb":"chatter"}\n')
            with trio.fail_after(5):
                await ended.wait()


async def test_events_of_two_children_do_not_mix(path: Path) -> None:
    async def pair(request: dict[str, object], emit: Emit) -> dict[str, object]:
        async def say(letter: str) -> None:
            for _ in range(20):
                await emit({"text": letter * 100_000})

        async with trio.open_nursery() as nursery:
            nursery.start_soon(say, "a")
            nursery.start_soon(say, "b")
        return {}

    async with serving(path, {"pair": pair}):
        events, _ = await ask(path, "pair", {})
    texts = [str(event["text"]) for event in events]
    assert len(texts) == 40
    assert all(len(text) == 100_000 and len(set(text)) == 1 for text in texts)


async def test_nothing_follows_a_line_that_was_cut_short(path: Path) -> None:
    patience = trio.CancelScope()
    cut = trio.Event()

    async def give_up(request: dict[str, object], emit: Emit) -> dict[str, object]:
        with patience:
            await emit({"text": "x" * (8 << 20)})
        cut.set()
        return {"after": "the cut"}

    async with serving(path, {"give_up": give_up}):
        stream = await trio.open_unix_socket(str(path))
        async with stream:
            await stream.send_all(b'{"verb":"give_up"}\n')
            received = await stream.receive_some(100)
            patience.cancel()
            await cut.wait()
            while data := await stream.receive_some():
                received += data
    assert received.startswith(b'{"event":')
    assert received.endswith(b"xxx")


@pytest.mark.parametrize(
    "sent",
    [
        b"\n",
        b"hello\n",
        b"\xff\x00\n",
        b"[1,2]\n",
        b"{}\n",
        b'{"verb": 7}\n',
        b'{"verb": "echo", "request": []}\n',
        b"[" * 100_000 + b"\n",
        b'{"verb": "' + b"x" * (1 << 20) + b'"}\n',
    ],
    ids=["empty", "word", "binary", "list", "no-verb", "number", "request", "deep", "long"],
)
async def test_garbage_gets_a_typed_error_and_the_next_asker_an_answer(
    path: Path, sent: bytes
) -> None:
    async with serving(path, {"echo": echo}):
        reply = await raw_reply(path, sent)
        assert reply["error"]["code"] == "bad_request"
        assert reply["error"]["exit_code"] == 2
        assert (await ask(path, "echo", {}))[1] == {}


async def test_silence_is_hung_up_on(path: Path) -> None:
    async with serving(path, {}, Limits(request_timeout_s=0.05)):
        assert (await raw_reply(path, b'{"verb"'))["error"]["message"] == "no request in time"


async def test_an_unknown_verb_is_a_usage_error(path: Path) -> None:
    async with serving(path, {"echo": echo}):
        with pytest.raises(VerbFailedError, match="unknown verb 'dance'") as caught:
            await ask(path, "dance", {})
    assert (caught.value.code, caught.value.exit_code) == ("unknown_verb", 2)


async def test_a_full_socket_says_busy(path: Path) -> None:
    async def wait(request: dict[str, object], emit: Emit) -> dict[str, object]:
        await emit({})
        await trio.sleep_forever()
        return {}

    async with serving(path, {"wait": wait}, Limits(connections=1)):
        stream = await trio.open_unix_socket(str(path))
        async with stream:
            await stream.send_all(b'{"verb":"wait"}\n')
            await stream.receive_some()
            with pytest.raises(VerbFailedError) as caught:
                await ask(path, "wait", {})
    assert (caught.value.code, caught.value.exit_code) == ("busy", 5)
    assert caught.value.hint == "try again in 1 s"


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (ConfigError("port taken"), "usage", 2),
        (RequestRefusedError("not_allowed"), "not_allowed", 4),
        (RequestRefusedError("not-allowed"), "not_allowed", 4),
        (RequestRefusedError("busy", retry_after_s=3), "busy", 5),
        (RequestRefusedError("no_capacity"), "no_capacity", 5),
        (RequestRefusedError("no_peer"), "no_peer", 5),
        (RequestRefusedError("stale"), "stale", 1),
        (RequestFailedError("timeout"), "timeout", 1),
        (PeerUnreachableError("gone"), "unreachable", 1),
        (KowalskiError("odd"), "failed", 1),
        (trio.TooSlowError(), "timeout", 1),
        (
            ExceptionGroup("", [ConfigError("a"), ExceptionGroup("", [ConfigError("b")])]),
            "usage",
            2,
        ),
        (ZeroDivisionError("bug"), "internal", 1),
        (ExceptionGroup("", [ConfigError("a"), ZeroDivisionError("bug")]), "internal", 1),
    ],
    ids=repr,
)
async def test_what_a_verb_raises_becomes_an_error_and_the_node_goes_on(
    path: Path, error: Exception, code: str, exit_code: int
) -> None:
    async def fail(request: dict[str, object], emit: Emit) -> dict[str, object]:
        raise error

    async with serving(path, {"fail": fail, "echo": echo}):
        with pytest.raises(VerbFailedError) as caught:
            await ask(path, "fail", {})
        assert (caught.value.code, caught.value.exit_code) == (code, exit_code)
        assert (await ask(path, "echo", {}))[1] == {}


async def test_a_bug_is_not_told_to_the_asker_in_its_own_words(path: Path) -> None:
    async def fail(request: dict[str, object], emit: Emit) -> dict[str, object]:
        raise RuntimeError("the secret is 42")

    async with serving(path, {"fail": fail}):
        with pytest.raises(VerbFailedError) as caught:
            await ask(path, "fail", {})
    assert "42" not in str(caught.value)


async def test_a_bug_that_comes_with_a_cancellation_does_not_end_the_node(path: Path) -> None:
    begun = trio.Event()

    async def trip(request: dict[str, object], emit: Emit) -> dict[str, object]:
        async def fall() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ZeroDivisionError

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fall)
            nursery.start_soon(trio.sleep_forever)
            begun.set()
        return {}

    async with serving(path, {"trip": trip, "echo": echo}):
        stream = await trio.open_unix_socket(str(path))
        await stream.send_all(b'{"verb":"trip"}\n')
        await begun.wait()
        await stream.aclose()
        assert (await ask(path, "echo", {}))[1] == {}


@pytest.mark.parametrize("result", [{"a": b"bytes"}, {"a": float("nan")}, {1: {2}}], ids=repr)
async def test_a_result_without_a_form_in_json_is_a_defect_of_the_node(
    path: Path, result: dict[str, object]
) -> None:
    async def odd(request: dict[str, object], emit: Emit) -> dict[str, object]:
        return result

    async with serving(path, {"odd": odd}):
        with pytest.raises(VerbFailedError) as caught:
            await ask(path, "odd", {})
    assert caught.value.code == "internal"


async def test_a_reply_larger_than_the_line_says_so(path: Path) -> None:
    async def huge(request: dict[str, object], emit: Emit) -> dict[str, object]:
        return {"text": "x" * (17 << 20)}

    async with serving(path, {"huge": huge}):
        with pytest.raises(VerbFailedError) as caught:
            await ask(path, "huge", {})
    assert caught.value.code == "too_large"


async def test_what_a_dead_node_left_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(path, {"echo": echo}):
        assert (await ask(path, "echo", {}))[1] == {}


async def test_a_plain_file_in_the_way_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("not a socket")
    async with serving(path, {"echo": echo}):
        assert (await ask(path, "echo", {}))[1] == {}


async def test_a_living_node_is_not_pushed_aside(path: Path) -> None:
    async with serving(path, {"echo": echo}):
        with pytest.raises(ConfigError, match=rf"already running \(pid {os.getpid()}\)"):
            await serve_control(path, {})
        assert (await ask(path, "echo", {}))[1] == {}


async def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a directory away needs root")
    directory = tmp_path / "run"
    directory.mkdir()
    os.chown(directory, 12345, 12345)
    with pytest.raises(ConfigError, match="somebody else"):
        await serve_control(directory / "control.sock", {})


async def test_a_link_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match="somebody else"):
        await serve_control(tmp_path / "run" / "control.sock", {})


async def test_a_path_that_cannot_be_made_is_the_operators_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="control socket"):
        await serve_control(tmp_path / "file" / "run" / "control.sock", {})


async def test_nobody_at_the_socket_is_told_apart_from_a_node_that_dies(path: Path) -> None:
    with pytest.raises(NodeNotRunningError):
        await ask(path, "echo", {})

    async def wait(request: dict[str, object], emit: Emit) -> dict[str, object]:
        nursery.cancel_scope.cancel()
        await trio.sleep_forever()
        return {}

    async def expect_gone() -> None:
        with pytest.raises(NodeGoneError):
            await ask(path, "wait", {})

    async with trio.open_nursery() as outer, trio.open_nursery() as nursery:

        async def serve(task_status: Listening = trio.TASK_STATUS_IGNORED) -> None:
            await serve_control(path, {"wait": wait}, task_status=task_status)

        await nursery.start(serve)
        outer.start_soon(expect_gone)


async def test_a_silent_node_is_given_up(path: Path) -> None:
    async def wait(request: dict[str, object], emit: Emit) -> dict[str, object]:
        await trio.sleep_forever()
        return {}

    def blocking() -> None:
        with pytest.raises(NodeGoneError, match=r"said nothing for 0\.05 s"):
            converse(path, "wait", {}, on_event=print, silence_s=0.05)

    async with serving(path, {"wait": wait}):
        await trio.to_thread.run_sync(blocking)


async def test_a_request_too_large_is_refused_before_it_is_sent(path: Path) -> None:
    with pytest.raises(ConfigError, match="1048576"):
        await ask(path, "echo", {"text": "x" * (1 << 20)})


async def test_two_nodes_never_share_a_data_directory(tmp_path: Path) -> None:
    data_dir = tmp_path / "a" / "b"
    with claim_data_dir(data_dir):
        assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
        with (
            pytest.raises(ConfigError, match=rf"already running \(pid {os.getpid()}\)"),
            claim_data_dir(data_dir),
        ):
            pytest.fail("claimed twice")
    with claim_data_dir(data_dir):
        pass


async def test_a_claim_dies_with_its_process(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys\n"
        "from kowalski.node.control import claim_data_dir\n"
        "with claim_data_dir(pathlib.Path(sys.argv[1])):\n"
        "    print(os.getpid(), flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        pid = process.stdout.readline().strip()
        with pytest.raises(ConfigError, match=f"pid {pid}"), claim_data_dir(tmp_path):
            pytest.fail("claimed twice")
        process.kill()
        process.wait()
    with claim_data_dir(tmp_path):
        pass


async def test_a_data_directory_that_cannot_be_is_the_operators_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="data_dir"), claim_data_dir(tmp_path / "file"):
        pytest.fail("claimed a file")


async def test_a_refusal_carries_when_to_come_back() -> None:
    reply = error_reply(RequestRefusedError("busy", "queue full", 2.5))
    assert reply == {
        "error": {
            "code": "busy",
            "message": "busy: queue full",
            "exit_code": 5,
            "hint": "try again in 2.5 s",
        }
    }
