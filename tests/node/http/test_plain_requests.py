"""What is read without h11, and that both say the same of it."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.http.plain_requests import PlainTurn, header_value, plain_turn

HEAD_BYTES_MAX = 32 * 1024
POST = b"POST /v1/x?a=b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def found(data: bytes) -> tuple[PlainTurn, bytes]:
    turn = plain_turn(data, HEAD_BYTES_MAX)
    assert turn is not None
    return turn


def test_a_request_is_read_with_its_body_and_what_follows_is_given_back() -> None:
    turn, ahead = found(POST + b"Content-Length: 5\r\n\r\nhelloGET /")
    assert (turn.method, turn.target) == ("POST", "/v1/x?a=b")
    assert turn.headers == {"host": "x", "content-type": "application/json", "content-length": "5"}
    assert (turn.at_hand, turn.unread, ahead) == (5, 0, b"GET /")
    assert turn.take_body() == b"hello"
    assert turn.is_taken


def test_a_body_may_come_later_and_in_pieces() -> None:
    turn, ahead = found(POST + b"Content-Length: 5\r\n\r\n")
    assert (turn.at_hand, turn.unread, ahead) == (0, 5, b"")
    assert not turn.is_taken
    assert turn.receive(b"hel") == b""
    assert turn.receive(b"lo more") == b" more"
    assert turn.take_body() == b"hello"
    assert turn.is_taken


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"G",
        b"GET / HTTP/1.1\r\nHost: x\r\n",  # not whole
        b"GET / HTTP/1.1\r\n\r\n",  # no host
        b"GET / HTTP/1.0\r\nHost: x\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost: x\n\r\n",
        b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \xc3\xa4\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nhost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        POST + b"Content-Length: 5, 5\r\n\r\nhello",
        POST + b"Content-Length: +5\r\n\r\nhello",
        POST + b"Content-Length: \r\n\r\nhello",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
        POST + b"Content-Length: 99999999999999999999\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * HEAD_BYTES_MAX + b"\r\n\r\n",
    ],
)
def test_what_could_be_read_in_two_ways_or_is_none_is_left_to_h11(data: bytes) -> None:
    assert plain_turn(data, HEAD_BYTES_MAX) is None


PIECES = st.sampled_from(
    [
        *(b"GET / HTTP/1.1\r\n", b"POST /a%20b?c HTTP/1.1\r\n", b"PUT / HTTP/1.0\r\n", b"GET /"),
        *(b"Host: x\r\n", b"host:y \r\n", b"Content-Length: 3\r\n", b"content-length:  0\r\n"),
        *(b"Content-Length: 03\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"),
        *(b"Connection: Keep-Alive\r\n", b"A: b\r\n", b"A:\r\n", b" A: b\r\n", b"A : b\r\n"),
        *(b"A: b\tc\r\n", b"Expect: 100-continue\r\n", b"A: \x00\r\n", b"A: b\n", b"\r\n", b"\n"),
        *(b"abc", b"a", b"\r", b" ", b"0\r\n\r\n", b'{"a":\x00}'),
    ]
)


def by_h11(data: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes, bool]:
    """Method, target, headers, as much of the body as is there, and whether that is all of it."""
    reader = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
    reader.receive_data(data)
    head, body = reader.next_event(), b""
    assert isinstance(head, h11.Request)
    while isinstance(event := reader.next_event(), h11.Data):
        body += bytes(event.data)
    headers = list(head.headers)
    return head.method, head.target, headers, body, isinstance(event, h11.EndOfMessage)


@given(st.lists(PIECES, min_size=2, max_size=9).map(b"".join))
def test_whatever_is_plain_h11_reads_in_the_same_way(data: bytes) -> None:
    if (read := plain_turn(data, HEAD_BYTES_MAX)) is None:
        return
    turn, _ = read
    method, target, headers, body, is_whole = by_h11(data)
    assert (turn.method.encode(), turn.target.encode()) == (method, target)
    assert [(n.encode(), v.encode()) for n, v in turn.headers.items()] == headers
    assert turn.unread == 0 if is_whole else turn.unread > 0
    assert turn.take_body() == body


@pytest.mark.parametrize("is_told", [True, False])
def test_answers_are_in_one_piece_or_in_chunks(*, is_told: bool) -> None:
    turn, _ = found(POST + b"\r\n")
    length = [("content-length", "5")] if is_told else []
    said = turn.begin(200, [("content-type", "text/plain"), *length])
    said += turn.data(b"hel") + turn.data(b"") + turn.data(b"lo")
    assert turn.phase == "under way"
    said += turn.end()
    assert turn.phase == "over"
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(said)
    head, body = reader.next_event(), b""
    assert isinstance(head, h11.Response)
    assert (head.status_code, head.reason) == (200, b"OK")
    while isinstance(event := reader.next_event(), h11.Data):
        body += bytes(event.data)
    assert body == b"hello"
    assert isinstance(event, h11.EndOfMessage)


def test_nothing_follows_an_answer_that_says_so() -> None:
    turn, _ = found(POST + b"\r\n")
    turn.begin(413, [("connection", "close"), ("content-length", "0")])
    turn.end()
    assert turn.phase == "closing"


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("score 0.9: 12 tokens/s", "score 0.9: 12 tokens/s"),
        (" a\r\nset-cookie: b\x00 ", "a  set-cookie: b"),
        ("Zoë's", "Zo?'s"),
        ("", ""),
    ],
)
def test_a_header_is_one_line_of_printable_characters_whatever_a_peer_calls_itself(
    value: str, line: str
) -> None:
    assert header_value(value) == line
