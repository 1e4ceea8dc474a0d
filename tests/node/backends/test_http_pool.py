"""Connections to model servers: what goes over them, which is used again, how many there are."""

from __future__ import annotations

import contextlib
import gc
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from kowalski.node.backends.http import KEEPALIVE_S, open_http
from kowalski.node.backends.http_answers import AnswerReader
from kowalski.node.backends.http_pool import Origin
from kowalski.node.backends.seam import BackendError
from tests.node.backends.test_http import OK_HEAD, fetch_error, open_raw_server


@contextlib.asynccontextmanager
async def open_counting_server(
    answer: bytes, *, then_closes: bool = False, context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, list[list[bytes]]]]:
    """Its port, and what came on each connection; every piece is answered with these bytes."""
    heard: list[list[bytes]] = []

    async def serve(plain: trio.SocketStream) -> None:
        stream: trio.abc.Stream = plain
        if context is not None:
            stream = trio.SSLStream(plain, context, server_side=True, https_compatible=True)
        heard.append(pieces := [])
        with contextlib.suppress(trio.BrokenResourceError):
            async with stream:
                while piece := await stream.receive_some(65536):
                    pieces.append(bytes(piece))
                    await stream.send_all(answer)
                    if then_closes:
                        return

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield listeners[0].socket.getsockname()[1], heard
        nursery.cancel_scope.cancel()


OK = OK_HEAD + b"content-length: 2\r\n\r\nok"


@pytest.mark.trio
async def test_a_request_goes_out_in_one_piece_with_its_body() -> None:
    async with open_counting_server(OK) as (port, heard), open_http() as http:
        url = f"http://127.0.0.1:{port}/v1?x=1"
        reply = await http.fetch(url, method="POST", body=b"hello", timeout_s=2)
        assert (reply.status, reply.body) == (200, b"ok")
    ((piece,),) = heard
    assert piece.startswith(b"POST /v1?x=1 HTTP/1.1\r\n")
    assert piece.endswith(b"\r\n\r\nhello")


@pytest.mark.trio
@pytest.mark.parametrize(
    ("answer", "then_closes"),
    [
        (OK_HEAD + b"connection: close\r\ncontent-length: 2\r\n\r\nok", False),
        (OK, True),  # without a word
        (OK + OK, False),  # the second is nobody's answer
    ],
)
async def test_a_connection_that_cannot_be_trusted_with_another_request_is_not_used_again(
    answer: bytes, then_closes: bool
) -> None:
    opened = open_counting_server(answer, then_closes=then_closes)
    async with opened as (port, heard), open_http() as http:
        for _ in range(3):
            reply = await http.fetch(f"http://127.0.0.1:{port}/", timeout_s=2)
            assert reply.body == b"ok"
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert [len(pieces) for pieces in heard] == [1, 1, 1]


@pytest.mark.trio
async def test_an_answer_that_is_over_leaves_nothing_to_be_searched_for() -> None:
    async with open_counting_server(OK) as (port, _), open_http() as http:
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                await http.fetch(f"http://127.0.0.1:{port}/", timeout_s=2)
            assert sum(isinstance(one, AnswerReader) for one in gc.get_objects()) == 1
        finally:
            gc.enable()


@pytest.mark.trio
async def test_interim_answers_are_passed_over() -> None:
    opened = open_counting_server(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK)
    async with opened as (port, _), open_http() as http:
        assert (await http.fetch(f"http://127.0.0.1:{port}/", timeout_s=2)).body == b"ok"


@pytest.mark.trio
async def test_what_a_server_says_before_it_hangs_up_on_a_long_body_is_heard() -> None:
    full = b"HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    async with open_raw_server(full) as url, open_http() as http:
        with contextlib.suppress(BackendError):  # the system may have thrown its words away
            reply = await http.fetch(url, method="POST", body=b"x" * 30_000_000, timeout_s=5)
            assert reply.status == 413


@pytest.mark.trio
async def test_there_are_never_more_connections_than_allowed_whomever_they_go_to(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Counted()
    async with open_http(connections_max=3, connect=network.connect) as http:
        for host in ("a", "b", "c", "d", "e", "a"):
            await http.fetch(f"http://{host}/", timeout_s=2)
        assert network.most == 3
        await trio.sleep(KEEPALIVE_S + 0.1)
        before = len(network.asked)
        await http.fetch("http://e/", timeout_s=2)
        assert len(network.asked) == before + 1  # the old one is not trusted any more
    assert network.open == 0


@pytest.mark.trio
async def test_a_connection_opened_ahead_is_the_next_requests_and_grows_old_like_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Counted()
    async with open_http(connections_max=1, connect=network.connect) as http:
        await http.connect("http://a/", timeout_s=2)
        await trio.sleep(KEEPALIVE_S / 2)
        await http.connect("http://a/", timeout_s=2)
        assert network.asked == ["a"]
        await trio.sleep(KEEPALIVE_S / 2 + 0.1)
        await http.fetch("http://a/", timeout_s=2)
        assert network.asked == ["a", "a"]  # nobody used the first in time
        await http.connect("http://b/", timeout_s=2)
        await http.fetch("http://b/", timeout_s=2)
        assert network.asked == ["a", "a", "b"]
        assert network.most == 1


class Counted:
    """A network whose servers answer at once; how many connections are open, and were at most."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.open = self.most = 0

    async def connect(self, origin: Origin) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.asked.append(origin.host)
        self.open += 1
        self.most = max(self.most, self.open)
        return Echo(self)


class Echo(trio.abc.Stream):
    def __init__(self, network: Counted) -> None:
        self.network = network
        self.unread = b""

    async def send_all(self, data: object) -> None:
        await trio.lowlevel.checkpoint()
        self.unread += OK

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        said, self.unread = self.unread, b""
        return said

    async def aclose(self) -> None:
        self.network.open -= 1
        await trio.lowlevel.checkpoint()


@pytest.mark.trio
async def test_a_secret_connection_is_made_only_to_who_proves_to_be_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, context = self_signed(tmp_path, "localhost")
    async with open_counting_server(OK, context=context) as (port, heard):
        assert (await fetch_error(f"https://localhost:{port}/")).code == "unreachable"
        assert not any(heard)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with open_http() as http:
            for _ in range(2):
                reply = await http.fetch(f"https://localhost:{port}/", timeout_s=5)
                assert reply.body == b"ok"
        error = await fetch_error(f"https://127.0.0.1:{port}/")
        assert error.code == "unreachable"


@pytest.mark.trio
@pytest.mark.parametrize("answer", [b"", OK_HEAD])
async def test_a_server_that_does_not_answer_is_not_waited_for(answer: bytes) -> None:
    async with open_counting_server(answer) as (port, _), open_http() as http:
        url = f"http://127.0.0.1:{port}/"
        with trio.fail_after(30), pytest.raises(BackendError, match=r"^stalled: .* within 0\.3 s"):
            async with http.stream("GET", url, head_timeout_s=0.3):
                pass


@pytest.mark.trio
@pytest.mark.parametrize("is_secret", [False, True])
async def test_a_server_that_goes_silent_is_not_waited_for_and_its_connection_not_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_secret: bool
) -> None:
    certificate, context = self_signed(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    half = OK_HEAD + b"content-length: 9\r\n\r\nab"
    opened = open_counting_server(half, context=context if is_secret else None)
    async with opened as (port, heard), open_http(connect_timeout_s=30) as http:
        url = f"{'https' if is_secret else 'http'}://localhost:{port}/"

        async def read() -> None:
            async with http.stream("GET", url, head_timeout_s=60) as reply:
                while await reply.receive(until=trio.current_time() + 0.1):
                    pass

        for _ in range(2):
            with trio.fail_after(100), pytest.raises(BackendError, match=r"^stalled: "):
                await read()
    assert [len(pieces) for pieces in heard] == [1, 1]


@pytest.mark.trio
async def test_a_server_that_does_not_read_what_it_is_sent_is_not_waited_for() -> None:
    async def serve(_stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery, open_http() as http:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/"
        with trio.fail_after(30), pytest.raises(BackendError, match=r"^stalled: .* within 0\.3 s"):
            async with http.stream("POST", url, body=b"x" * 30_000_000, head_timeout_s=0.3):
                pass
        nursery.cancel_scope.cancel()


def self_signed(folder: Path, host: str) -> tuple[Path, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(signed.public_bytes(Encoding.PEM))
    private.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, private)
    return certificate, context
