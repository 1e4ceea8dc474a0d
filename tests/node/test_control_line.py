"""Lines of the control socket."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.node import control_line
from kowalski.protocol.errors import RemoteProtocolError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_what_is_encoded_is_one_line_and_reads_back(value: dict[str, object]) -> None:
    line = control_line.encode(value)
    assert line.count(b"\n") == 1
    assert control_line.decode(line[:-1]) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_protocol_error(line: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        assert isinstance(control_line.decode(line), dict)


@given(st.lists(st.binary(max_size=20).filter(lambda b: b"\n" not in b)), st.integers(1, 7))
def test_lines_are_cut_alike_however_they_arrive(lines: list[bytes], step: int) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    buffer = control_line.LineBuffer(20)
    cut: list[bytes] = []
    for start in range(0, len(stream), step):
        buffer.feed(stream[start : start + step])
        while (line := buffer.next_line()) is not None:
            cut.append(line)
    assert cut == lines


@pytest.mark.parametrize("sent", [b"x" * 21, b"x" * 21 + b"\n", b"ok\n" + b"x" * 30])
def test_a_line_beyond_the_bound_is_refused(sent: bytes) -> None:
    buffer = control_line.LineBuffer(20)
    buffer.feed(sent)
    if sent.startswith(b"ok"):
        assert buffer.next_line() == b"ok"
    with pytest.raises(RemoteProtocolError, match="more than 20 bytes"):
        buffer.next_line()
