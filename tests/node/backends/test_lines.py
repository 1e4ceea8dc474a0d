"""Readers of lines: any bytes, in any pieces."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.backends.lines import (
    JsonLinesReader,
    JsonObject,
    LineSplitter,
    SseReader,
    excerpt,
    parse_json,
    parse_json_object,
)
from kowalski.node.backends.seam import BackendError

# Bytes that mean something to the readers come often.
noise = st.lists(
    st.sampled_from(
        [
            b"data:",
            b"data: x",
            b"data: x\n\n",
            b"\r",
            b"\n",
            b"\r\n",
            b": c",
            b"{}",
            b"\xff",
            b"[",
            b"e",
        ]
    )
    | st.binary(max_size=8),
    max_size=40,
).map(b"".join)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def read_sse(pieces: list[bytes], bytes_max: int = 1000) -> list[str] | str:
    """The events, or the code of the error."""
    reader = SseReader(line_bytes_max=bytes_max)
    try:
        return [event for piece in pieces for event in reader.feed(piece)] + reader.finish()
    except BackendError as error:
        return error.code


@given(noise, st.lists(st.integers(0, 400), max_size=12))
def test_events_do_not_depend_on_how_the_bytes_were_cut(data: bytes, places: list[int]) -> None:
    assert read_sse(cut(data, places)) == read_sse([data])


@given(noise, st.lists(st.integers(0, 400), max_size=12))
def test_a_limit_on_lines_holds_however_they_were_cut(data: bytes, places: list[int]) -> None:
    assert read_sse(cut(data, places), bytes_max=12) == read_sse([data], bytes_max=12)


@given(noise, st.lists(st.integers(0, 400), max_size=12))
def test_json_lines_are_objects_or_a_bad_reply(data: bytes, places: list[int]) -> None:
    def read(pieces: list[bytes]) -> list[JsonObject] | str:
        reader = JsonLinesReader(line_bytes_max=100)
        try:
            return [value for piece in pieces for value in reader.feed(piece)] + reader.finish()
        except BackendError as error:
            return error.code

    values = read(cut(data, places))
    assert values == read([data])
    assert values == "bad_reply" or all(isinstance(value, dict) for value in values)


@given(st.lists(st.text(max_size=20)), st.sampled_from(["\n", "\r", "\r\n"]))
def test_what_was_sent_as_events_arrives(texts: list[str], end: str) -> None:
    payloads = [json.dumps(text) for text in texts]
    sent = "".join(f": c{end}event: x{end}data: {payload}{end}{end}" for payload in payloads)
    assert read_sse([sent.encode()], bytes_max=10_000) == payloads


def test_whole_events_may_follow_on_the_half_of_one() -> None:
    pieces = [b"data: a\n\ndata: b\n\n", b"data: c\n", b"\n", b"data: d\n\n", b"\ndata: e\n\n"]
    assert read_sse(pieces) == ["a", "b", "c", "d", "e"]
    assert read_sse([b"data: a\n", b"data: b\n\n", b"da", b"ta: c\n\n", b"data: d\r\n\r\n"]) == [
        "a\nb",
        "c",
        "d",
    ]
    assert read_sse([b"data", b"data: a\n\n", b": ", b"data: b\n\n", b"data: c\n\n"]) == ["c"]


def test_the_data_lines_of_one_event_are_joined() -> None:
    assert read_sse([b"data: a\ndata:b\ndata\n\n"]) == ["a\nb\n"]


def test_a_byte_order_mark_is_skipped_once() -> None:
    assert read_sse([b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n"]) == ["a"]


def test_an_event_without_its_blank_line_counts_at_the_end() -> None:
    assert read_sse([b"data: [DONE]"]) == ["[DONE]"]


def test_an_event_of_many_short_lines_is_bounded() -> None:
    assert read_sse([b"data\n" * 2000]) == "bad_reply"


def test_a_line_that_never_ends_is_bounded() -> None:
    splitter = LineSplitter(line_bytes_max=10)
    assert splitter.feed(b"1234567890") == []
    with pytest.raises(BackendError, match="more than 10 bytes"):
        splitter.feed(b"1")


def test_what_is_no_utf8_is_shown() -> None:
    with pytest.raises(BackendError, match=r"no UTF-8.*\\xff"):
        SseReader().feed(b"data: ab\xff\n\n")


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 10_000, "{", "", b"\xff\xff", '{"a":}'])
def test_what_is_no_json_is_a_bad_reply(text: str | bytes) -> None:
    with pytest.raises(BackendError) as caught:
        parse_json(text)
    assert caught.value.code == "bad_reply"
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("text", ["[]", "1", "null", '"x"'])
def test_json_that_is_no_object_is_a_bad_reply(text: str) -> None:
    with pytest.raises(BackendError, match="no JSON object"):
        parse_json_object(text)


@given(st.text() | st.binary() | st.lists(st.integers()))
def test_an_excerpt_is_short(value: object) -> None:
    assert len(excerpt(value)) < 900  # 80 characters, each escaped at worst as \U0001f600


def test_a_line_end_of_two_bytes_may_be_cut_anywhere() -> None:
    sent = b"data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n"
    for place in range(len(sent)):
        assert read_sse([sent[:place], sent[place:]]) == ["a\nb", "c"]


@pytest.mark.parametrize("text", ['{"a":1}', ' {"a":1}', '{"a":1} \n', '\n{"a":1}'])
def test_spaces_around_an_object_do_not_matter(text: str) -> None:
    assert parse_json_object(text) == {"a": 1}


@pytest.mark.parametrize("text", ['{"a":1}x', '{"a":1}{"b":2}', '{"a":1', "{"])
def test_an_object_with_something_behind_it_is_none(text: str) -> None:
    with pytest.raises(BackendError, match="no JSON"):
        parse_json_object(text)
