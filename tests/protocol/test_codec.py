"""Frames and envelopes: what goes in comes out, and nothing else comes out of anything."""

from __future__ import annotations

import contextlib
import itertools
import struct
from collections.abc import Sequence

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kowalski.protocol.codec import (
    LAST,
    REQUEST_MAX,
    Envelope,
    EnvelopeReader,
    decode,
    decode_plain,
    encode,
    encode_plain,
    seal,
)
from kowalski.protocol.errors import LocalProtocolError, RemoteProtocolError
from kowalski.protocol.limits import DEPTH_MAX, FRAME_BYTES_DEFAULT, FRAME_BYTES_MAX
from kowalski.protocol.messages.base import Cancel, Failed, Message, Refused
from kowalski.protocol.messages.content import ContentChunk
from kowalski.protocol.messages.registry import MESSAGES
from kowalski.protocol.messages.repl import CellAsked, SubCall, SubCallsAsked
from kowalski.protocol.messages.telemetry import Hot, HotDelta
from tests.protocol import hostile_frames, strategies
from tests.protocol.examples import EXAMPLES

FRAMES = st.sampled_from([encode(message) for message in EXAMPLES.values()])


def read(data: bytes) -> Message | None:
    """What `decode` makes of `data`; None if it refuses as it should."""
    try:
        return decode(data)
    except RemoteProtocolError:
        return None


def why(data: bytes) -> str:
    with pytest.raises(RemoteProtocolError) as refused:
        decode(data)
    return str(refused.value)


# --- there and back -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(MESSAGES))
def test_a_message_comes_out_as_it_went_in(kind: str) -> None:
    @settings(max_examples=20, deadline=None)
    @given(strategies.messages(kind))
    def holds(message: Message) -> None:
        frame = encode(message)
        again = decode(frame)
        assert again == message
        assert type(again) is MESSAGES[kind]
        assert encode(again) == frame

    holds()


@settings(max_examples=50, deadline=None)
@given(strategies.messages())
def test_frames_are_deterministic_by_the_letter_of_the_rfc(message: Message) -> None:
    frame = encode(message)
    version, kind, body = cbor2.loads(frame)
    assert (version, kind) == (1, message.KIND)

    def in_order(item: object) -> bool:
        if isinstance(item, dict):
            keys = [cbor2.dumps(key) for key in item]
            return keys == sorted(keys) and all(map(in_order, item.values()))
        return all(map(in_order, item)) if isinstance(item, list) else True

    assert in_order(body)
    assert None not in body.values()


def test_fields_at_their_default_stay_at_home() -> None:
    assert cbor2.loads(encode(Refused(reason="busy")))[2] == {"reason": "busy"}
    hot = HotDelta(boot="0" * 16, sequence=1, hot=Hot())
    assert cbor2.loads(encode(hot))[2] == {"boot": "0" * 16, "sequence": 1, "hot": {}}


def test_a_message_larger_than_its_kind_may_be_is_our_own_fault() -> None:
    calls = tuple(SubCall(prompt="x" * 300_000) for _ in range(4))
    with pytest.raises(LocalProtocolError, match="repl/sub-calls-asked frame of 12"):
        encode(SubCallsAsked(batch=1, calls=calls))


def test_the_largest_chunk_fits() -> None:
    chunk = ContentChunk(data=bytes(512 * 1024), bytes_total=2**28)
    assert decode(encode(chunk)) == chunk


# --- what strangers send ------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    read(data)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100), st.sampled_from(sorted(MESSAGES)))
def test_any_bytes_for_a_body_are_a_message_or_refused(body: bytes, kind: str) -> None:
    read(hostile_frames.framed(body, kind=kind))


ITEMS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.just(cbor2.undefined)
    | st.sampled_from([cbor2.CBORSimpleValue(n) for n in (0, 19, 32, 255)])
    | st.builds(cbor2.CBORTag, st.integers(0, 2**20), st.text(max_size=3)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.binary(max_size=2), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(EXAMPLES)), st.data())
def test_a_field_may_hold_anything_and_no_harm_is_done(kind: str, data: st.DataObject) -> None:
    body = cbor2.loads(encode(EXAMPLES[kind]))[2] or {"nothing": 0}
    body[data.draw(st.sampled_from(sorted(body)))] = data.draw(ITEMS)
    read(cbor2.dumps([1, kind, body]))


@settings(max_examples=200, deadline=None)
@given(FRAMES, st.data())
def test_a_damaged_frame_is_a_message_or_refused(frame: bytes, data: st.DataObject) -> None:
    damaged = bytearray(frame)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "drop"])):
            case "flip":
                damaged[at] ^= data.draw(st.integers(1, 255))
            case "cut":
                del damaged[at + 1 :]
            case "insert":
                damaged[at:at] = data.draw(st.binary(min_size=1, max_size=9))
            case _ if len(damaged) > 1:
                del damaged[at]
    read(bytes(damaged))


@given(FRAMES, st.data())
def test_every_part_of_a_frame_is_needed(frame: bytes, data: st.DataObject) -> None:
    assert read(frame[: data.draw(st.integers(0, len(frame) - 1))]) is None


# --- each rule by itself ------------------------------------------------------------------------


def test_a_field_from_the_future_is_ignored_at_every_level() -> None:
    hot = {"repl": {"running": 1, "new": [1, {"deep": None}]}, "gpu_used": 0.5}
    body = {"boot": "0" * 16, "sequence": 1, "hot": hot, "signature": b"?"}
    message = decode(cbor2.dumps([1, "telemetry/hot", body]))
    assert isinstance(message, HotDelta)
    assert message.hot.repl.running == 1
    assert encode(message) == encode(decode(encode(message)))


def test_an_unknown_kind_is_refused_by_its_name() -> None:
    assert why(hostile_frames.framed(b"\xa0", kind="task/teleport")) == (
        "unknown kind 'task/teleport'"
    )


def test_a_long_unknown_kind_is_not_repeated_whole() -> None:
    assert len(why(hostile_frames.framed(b"\xa0", kind="k" * 100_000))) < 120


@pytest.mark.parametrize("version", [b"\x00", b"\x02", b"\x18\x64", b"\x1b" + b"\xff" * 8])
def test_another_wire_version_is_refused_by_its_number(version: bytes) -> None:
    frame = hostile_frames.framed(b"\xc1\x00 not even CBOR", version=version)
    assert why(frame) == f"wire version {cbor2.loads(version)}, ours is 1"


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xa0", id="a map"),
        pytest.param(b"\x80", id="an empty array"),
        pytest.param(cbor2.dumps([1, "base/cancel"]), id="two parts"),
        pytest.param(cbor2.dumps([1, "base/cancel", {}, {}]), id="four parts"),
        pytest.param(b"\x98\x03" + encode(Cancel())[1:], id="a wasteful array head"),
        pytest.param(b"\x9f" + encode(Cancel())[1:] + b"\xff", id="an array without an end"),
        pytest.param(cbor2.dumps([True, "base/cancel", {}]), id="true for 1"),
        pytest.param(cbor2.dumps([1.0, "base/cancel", {}]), id="1.0 for 1"),
        pytest.param(cbor2.dumps(["1", "base/cancel", {}]), id="the text 1"),
        pytest.param(cbor2.dumps([1, b"base/cancel", {}]), id="bytes for a kind"),
        pytest.param(cbor2.dumps([1, ["base/cancel"], {}]), id="a list for a kind"),
        pytest.param(cbor2.dumps([1, "base/cancel", []]), id="a list for a body"),
        pytest.param(cbor2.dumps([1, "base/cancel", None]), id="no body"),
        pytest.param(encode(Cancel()) + b"\x00", id="one byte too many"),
        pytest.param(encode(Cancel()) * 2, id="two frames"),
    ],
)
def test_what_is_no_frame_is_refused(frame: bytes) -> None:
    assert read(frame) is None


@pytest.mark.parametrize(
    "item",
    [
        pytest.param("c074323032362d30312d30315430303a30303a30305a", id="a date"),
        pytest.param("c11a514b67b0", id="a time"),
        pytest.param("c249010000000000000000", id="a big number"),
        pytest.param("c4820103", id="a decimal"),
        pytest.param("d81c80", id="a shared item"),
        pytest.param("d81d00", id="a reference"),
        pytest.param("d9010080", id="a table of strings"),
        pytest.param("d9010281", id="a set"),
        pytest.param("d8236161", id="a regular expression"),
        pytest.param("d9d9f7a0", id="self-described CBOR"),
        pytest.param("da7fffffff00", id="a tag that nobody knows"),
        pytest.param("9f01ff", id="an array without an end"),
        pytest.param("bfff", id="a map without an end"),
        pytest.param("7f6161ff", id="a text in pieces"),
        pytest.param("5f4161ff", id="bytes in pieces"),
        pytest.param("a2616101616102", id="a key that comes twice"),
        pytest.param("a10102", id="a number for a key"),
        pytest.param("a1810102", id="a list for a key"),
        pytest.param("62ff80", id="a text that is not UTF-8"),
        pytest.param("63eda080", id="half a surrogate pair"),
        pytest.param("1c", id="a reserved length"),
        pytest.param("ff", id="a break out of nowhere"),
        pytest.param("9bffffffffffffffff", id="a list longer than the universe"),
        pytest.param("5b7fffffffffffffff", id="bytes longer than memory"),
        pytest.param("bb00ffffffffffffff", id="a map longer than memory"),
    ],
)
def test_an_item_that_this_wire_does_not_use_is_refused_even_where_it_would_be_ignored(
    item: str,
) -> None:
    assert read(hostile_frames.refused_with(b"\x00")) == Refused(reason="busy")
    assert read(hostile_frames.refused_with(bytes.fromhex(item))) is None


@pytest.mark.parametrize(
    "number",
    [float("nan"), float("inf"), float("-inf"), -1.0, -1, 1e8, 2**63, "1", b"1", True, [1], {}],
)
def test_a_duration_is_a_finite_number_within_its_bounds(number: object) -> None:
    body = {"reason": "busy", "retry_after_s": number}
    assert "retry_after_s" in why(cbor2.dumps([1, "base/refused", body]))


def test_a_whole_number_may_stand_for_a_duration() -> None:
    frame = cbor2.dumps([1, "base/refused", {"reason": "busy", "retry_after_s": 2}])
    assert decode(frame) == Refused(reason="busy", retry_after_s=2.0)


@pytest.mark.parametrize("number", ["4", 4.0, True, b"4", None, -1, 100_001, 2**64 - 1, [4]])
def test_a_whole_number_is_nothing_else(number: object) -> None:
    body = cbor2.loads(encode(EXAMPLES["repl/cell-asked"]))[2] | {"cell": number}
    assert "repl/cell-asked: cell: " in why(cbor2.dumps([1, "repl/cell-asked", body]))


@pytest.mark.parametrize("words", [b"busy", 1, None, ["busy"], {"busy": 1}, True])
def test_a_text_is_nothing_else(words: object) -> None:
    assert "reason" in why(cbor2.dumps([1, "base/refused", {"reason": words}]))


@pytest.mark.parametrize("data", ["text", 1, None, [0, 1], "AAAA"])
def test_bytes_are_nothing_else(data: object) -> None:
    assert "data" in why(cbor2.dumps([1, "content/chunk", {"data": data, "bytes_total": 4}]))


@pytest.mark.parametrize("flag", [0, 1, "true", None, 1.0])
def test_a_truth_is_nothing_else(flag: object) -> None:
    body = cbor2.loads(encode(EXAMPLES["repl/cell-done"]))[2] | {"is_session_alive": flag}
    assert "is_session_alive" in why(cbor2.dumps([1, "repl/cell-done", body]))


def test_nesting_ends_somewhere() -> None:
    within = hostile_frames.refused_with(hostile_frames.nested(DEPTH_MAX - 1))
    assert read(within) == Refused(reason="busy")
    assert "depth" in why(hostile_frames.refused_with(hostile_frames.nested(DEPTH_MAX)))
    assert "depth" in why(hostile_frames.refused_with(hostile_frames.nested(60_000)))


def test_the_deepest_example_is_far_from_the_limit() -> None:
    def depth(item: object) -> int:
        inner = item.values() if isinstance(item, dict) else item
        if not isinstance(inner, list | type({}.values())):
            return 0
        return 1 + max(map(depth, inner), default=0)

    assert max(depth(cbor2.loads(encode(m))[2]) for m in EXAMPLES.values()) * 2 <= DEPTH_MAX


def test_a_frame_is_refused_for_its_size_before_its_body_is_read() -> None:
    nonsense = b"\xff" * FRAME_BYTES_DEFAULT
    assert why(hostile_frames.framed(nonsense)) == "base/refused frame of 65551 bytes"
    assert why(bytes(FRAME_BYTES_MAX + 1)) == f"frame of {FRAME_BYTES_MAX + 1} bytes"


def test_a_refusal_names_the_field_and_shows_little_of_the_value() -> None:
    words = why(cbor2.dumps([1, "base/failed", {"code": "NO " * 10_000}]))
    assert words.startswith("base/failed: code: ")
    assert len(words) < 200


@pytest.mark.parametrize("item", [b"\x80", b"\xa0", b"\xf6", b"\x20", b"\x60"])
def test_a_megabyte_of_nonsense_is_refused_at_its_first_item(item: bytes) -> None:
    """Explaining every one of a million faults took three seconds."""
    nonsense = hostile_frames.list_of(item, FRAME_BYTES_MAX - 200)
    others = {"task": "t", "term": 1, "cell": 0, "language": "python", "code": ""}
    body = cbor2.dumps(others | {"timeout_s": 1, "remaining_s": 1, "after": None})
    frame = hostile_frames.framed(body.removesuffix(b"\xf6") + nonsense, kind=CellAsked.KIND)
    assert why(frame).startswith("repl/cell-asked: after.0: ")


def test_many_faults_are_counted_and_not_explained() -> None:
    speeds = {str(number): -1 for number in range(1000)}
    body = {"boot": "0" * 16, "sequence": 1, "hot": {"tokens_per_s": speeds}}
    words = why(cbor2.dumps([1, "telemetry/hot", body]))
    assert words.startswith("telemetry/hot: 1")
    assert words.endswith("fields are wrong")


# --- plain values -------------------------------------------------------------------------------


@given(st.recursive(st.integers(0, 2**64 - 1) | st.text() | st.binary(), st.lists, max_leaves=9))
def test_plain_values_come_out_as_they_went_in(value: object) -> None:
    assert decode_plain(encode_plain(value)) == value


@given(st.binary(max_size=60))
def test_plain_values_follow_the_rules_of_frames(data: bytes) -> None:
    try:
        decode_plain(data)
    except RemoteProtocolError:
        return
    assert not data.startswith((b"\xc2", b"\x9f", b"\xbf"))


@pytest.mark.parametrize("data", ["", "c249010000000000000000", "0102", "9f01ff"])
def test_a_plain_value_is_one_item_of_this_wire(data: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_plain(bytes.fromhex(data))


# --- envelopes ----------------------------------------------------------------------------------


ENVELOPES = st.lists(
    st.builds(
        Envelope,
        request=st.integers(0, REQUEST_MAX),
        frame=st.binary(max_size=40),
        is_last=st.booleans(),
    ),
    max_size=6,
)


def fed_in_pieces(stream: bytes, cuts: Sequence[int]) -> list[Envelope]:
    reader = EnvelopeReader()
    places = [0, *sorted(cuts), len(stream)]
    heard = []
    for start, end in itertools.pairwise(places):
        heard += reader.feed(stream[start:end])
    assert not reader.is_inside_a_frame
    return heard


@given(ENVELOPES, st.data())
def test_envelopes_come_out_however_the_stream_is_cut(
    envelopes: list[Envelope], data: st.DataObject
) -> None:
    stream = b"".join(map(seal, envelopes))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    assert fed_in_pieces(stream, cuts) == envelopes
    assert fed_in_pieces(stream, range(len(stream))) == envelopes


@given(ENVELOPES, st.data())
def test_a_stream_torn_inside_an_envelope_is_noticed(
    envelopes: list[Envelope], data: st.DataObject
) -> None:
    stream = b"".join(map(seal, envelopes))
    end = data.draw(st.integers(0, len(stream)))
    reader = EnvelopeReader()
    whole = reader.feed(stream[:end])
    assert whole == envelopes[: len(whole)]
    assert reader.is_inside_a_frame == (end != len(b"".join(map(seal, whole))))


@given(st.lists(st.binary(max_size=30), max_size=10))
def test_any_stream_is_envelopes_or_refused(pieces: list[bytes]) -> None:
    reader = EnvelopeReader(frame_bytes_max=20)
    with contextlib.suppress(RemoteProtocolError):
        for piece in pieces:
            for envelope in reader.feed(piece):
                assert 0 <= envelope.request <= REQUEST_MAX
                assert len(envelope.frame) <= 20


def test_the_head_is_two_numbers_of_32_bits_and_the_top_bit_means_last() -> None:
    assert seal(Envelope(7, b"abc")).hex() == "0000000300000007" + "616263"
    assert seal(Envelope(7, b"abc", is_last=True)).hex() == "0000000380000007" + "616263"
    assert REQUEST_MAX + 1 == LAST == 1 << 31


def test_a_frame_above_the_maximum_is_refused_when_its_head_is_there() -> None:
    reader = EnvelopeReader(frame_bytes_max=100)
    assert reader.feed(seal(Envelope(1, bytes(100)))) == [Envelope(1, bytes(100))]
    head = struct.pack("!II", 101, 1)
    with pytest.raises(RemoteProtocolError):
        EnvelopeReader(100).feed(seal(Envelope(1, bytes(101))))
    assert reader.feed(head[:7]) == []
    with pytest.raises(RemoteProtocolError, match="frame of 101 bytes"):
        reader.feed(head[7:])


def test_the_reader_holds_no_more_than_one_frame_in_the_making() -> None:
    reader = EnvelopeReader()
    stream = seal(Envelope(1, encode(Failed(code="internal", detail="x" * 1000)))) * 50
    assert len(reader.feed(stream[:-1])) == 49
    assert len(reader._buffer) < len(stream) / 50
