"""Answers of model servers out of bytes, however they are cut, and what is no answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.backends.http_answers import (
    HEAD_BYTES_MAX,
    AnswerReader,
    request_head,
    with_body,
)
from kowalski.node.backends.seam import BackendError

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello"
CHUNKS = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\nhe\r\n3;a=b\r\nllo\r\n0\r\nX-After: c\r\n\r\n"
)
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + LENGTH
UNTIL_THE_END = b"HTTP/1.0 200 OK\r\n\r\nhello"


def read(data: bytes, cuts: list[int]) -> tuple[AnswerReader, bytes]:
    reader, body, at = AnswerReader(), b"", 0
    for cut in sorted({min(cut, len(data)) for cut in cuts} | {len(data)}):
        if cut > at:
            reader.feed(data[at:cut])
            body += reader.take()
            at = cut
    return reader, body


@given(st.lists(st.integers(min_value=1, max_value=160), max_size=6))
def test_an_answer_is_the_same_however_its_bytes_come(cuts: list[int]) -> None:
    for data in (LENGTH, CHUNKS, INTERIM):
        reader, body = read(data, cuts)
        assert reader.head is not None
        assert (reader.head.status, body) == (200, b"hello")
        assert reader.is_whole
        assert not reader.is_last
        assert "x-after" not in reader.head.headers
        assert "link" not in reader.head.headers


def test_names_of_headers_are_in_lower_case() -> None:
    reader, _ = read(LENGTH, [])
    assert reader.head is not None
    assert reader.head.headers == {"content-length": "5", "x-a": "b"}


def test_a_body_without_a_length_ends_with_its_connection() -> None:
    reader, body = read(UNTIL_THE_END, [])
    assert (body, reader.is_whole) == (b"hello", False)
    reader.feed(b"")
    assert reader.is_whole
    assert reader.is_last


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        LENGTH + LENGTH,
        LENGTH + b"garbage",
    ],
)
def test_after_some_answers_nothing_may_be_asked(data: bytes) -> None:
    reader, _ = read(data, [])
    assert reader.is_whole
    assert reader.is_last


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 two OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nbad name: a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\x00c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabX",
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
)
def test_what_is_no_answer_is_told(data: bytes) -> None:
    with pytest.raises(BackendError) as caught:
        read(data, [])
    assert caught.value.code == "bad_reply"


@pytest.mark.parametrize(
    "beginning",
    [
        b"HTTP/1.1 200 OK\r\nX-A: ",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: ",
    ],
)
def test_what_says_nothing_is_bounded(beginning: bytes) -> None:
    long = beginning + b"a" * (HEAD_BYTES_MAX + 1000)
    with pytest.raises(BackendError, match="bytes that say nothing") as caught:
        read(long, list(range(1000, len(long), 1000)))
    assert caught.value.code == "bad_reply"


@pytest.mark.parametrize("data", [b"", LENGTH[:20], LENGTH[:-1], CHUNKS[:-9]])
def test_who_hangs_up_too_early_is_unreachable(data: bytes) -> None:
    reader, _ = read(data, [])
    with pytest.raises(BackendError) as caught:
        reader.feed(b"")
    assert caught.value.code == "unreachable"


def test_a_request_is_one_head_and_one_body() -> None:
    said = with_body(request_head("POST", b"/v1?a=b", {"Host": "h", "X-A": "b c"}), b"hello")
    assert said == (
        b"POST /v1?a=b HTTP/1.1\r\nHost: h\r\nX-A: b c\r\nContent-Length: 5\r\n\r\nhello"
    )
    head = request_head("GET", b"/", {"Host": "h"})
    assert with_body(head, b"") == b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GET", b"/ HTTP/1.1\r\nX: y", {}),
        ("GET /", b"/", {}),
        ("GET", b"/", {"X": "a\r\nY: b"}),
        ("GET", b"/", {"X\r\nY": "b"}),
        ("GET", b"/", {"X": "a\x00"}),
        ("GET", b"/", {"X": "\u20ac"}),
        ("GET", b"", {}),
    ],
)
def test_what_would_end_a_line_is_not_sent(
    method: str, target: bytes, headers: dict[str, str]
) -> None:
    with pytest.raises(BackendError) as caught:
        request_head(method, target, headers)
    assert caught.value.code == "unreachable"
