"""The line that an owner carries from one device to the next."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from kowalski.protocol import join_line
from kowalski.protocol.codec import encode_plain
from kowalski.protocol.errors import ConfigError
from kowalski.protocol.ids import Address
from kowalski.protocol.join_line import JoinLine
from kowalski.protocol.messages.trust import ROLES
from tests.protocol import strategies
from tests.protocol.examples import HOME, MESH, SUBMITTER

LINE = JoinLine(
    mesh=MESH,
    inviter=SUBMITTER,
    addresses=HOME,
    invite=b"invite 16 bytes.",
    secret=b"a secret, hidden",
    not_after_unix_s=1_795_000_000,
    roles=("submit", "coordinate", "repl", "infer", "fold"),
)
TEXT = LINE.render()
CONTENT = [
    base64.b32decode(MESH.upper()),
    SUBMITTER,
    list(HOME),
    LINE.invite,
    LINE.secret,
    LINE.not_after_unix_s,
    list(LINE.roles),
]


def rendered(content: object, prefix: str = "kw1:") -> str:
    data = encode_plain(content)
    data += hashlib.sha256(data).digest()[:4]
    return prefix + base64.urlsafe_b64encode(data).decode().rstrip("=")


def why(text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        join_line.parse(text)
    return str(refused.value)


@settings(max_examples=50, deadline=None)
@given(strategies.join_lines())
def test_a_line_reads_back(line: JoinLine) -> None:
    assert join_line.parse(line.render()) == line


def test_a_line_is_what_its_description_says() -> None:
    assert rendered(CONTENT) == TEXT
    assert re.fullmatch(r"kw1:[A-Za-z0-9_-]+", TEXT)


def test_a_line_fits_a_qr_code_and_a_terminal() -> None:
    assert len(TEXT) < 320


def test_the_largest_line_is_still_read() -> None:
    addresses = tuple(Address(f"/dns4/{'x' * 247}/{n:02}") for n in range(10, 26))
    line = LINE.model_copy(update={"addresses": addresses, "roles": ROLES})
    assert join_line.parse(line.render()) == line


@pytest.mark.parametrize(
    "text",
    [
        f"  {TEXT}\n",
        f'"{TEXT}"',
        f"'{TEXT}'\r\n",
        f"“{TEXT}”",
        f"`{TEXT}`",
        f"<{TEXT}>",
        f"{TEXT[:60]}\n{TEXT[60:120]}\r\n   {TEXT[120:]}",
        f"{TEXT[:60]}\u00a0{TEXT[60:]}",
        f"> {TEXT}",
    ],
)
def test_quotes_around_it_and_white_space_anywhere_are_no_matter(text: str) -> None:
    assert join_line.parse(text) == LINE


@pytest.mark.parametrize("text", ["", "  \n", '""'])
def test_nothing_is_called_empty(text: str) -> None:
    assert why(text) == "the join line is empty"


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "/ip4/192.168.1.7/tcp/4170",
        "kw1",
        "kw:abc",
        "kw1abc",
        "KW1:abc",
        f"x{TEXT}",
        "é" * 9,
    ],
)
def test_something_else_is_called_no_join_line(text: str) -> None:
    assert why(text) == "not a join line: one begins with kw1:"


def test_a_book_is_no_join_line() -> None:
    assert why("kw1:" + "A" * 100_000) == "not a join line: 100004 characters"


@pytest.mark.parametrize("version", ["kw2:", "kw17:", "kw0:"])
def test_a_line_of_another_version_names_it(version: str) -> None:
    words = why(rendered(CONTENT, version))
    assert version in words
    assert "update" in words


@given(st.integers(4, len(TEXT) - 1))
def test_a_line_cut_short_says_so(end: int) -> None:
    assert "cut short or mistyped" in why(TEXT[:end])


@given(st.integers(4, len(TEXT) - 2), st.sampled_from("abcXYZ019-_"))
def test_one_mistyped_character_is_noticed(at: int, character: str) -> None:
    mistyped = TEXT[:at] + character + TEXT[at + 1 :]
    if mistyped != TEXT:
        assert "mistyped" in why(mistyped)


@given(st.integers(4, len(TEXT) - 2))
def test_two_characters_exchanged_are_noticed(at: int) -> None:
    exchanged = TEXT[:at] + TEXT[at + 1] + TEXT[at] + TEXT[at + 2 :]
    if TEXT[at] != TEXT[at + 1]:
        assert "mistyped" in why(exchanged)


def test_a_character_that_is_never_in_one_is_pointed_at() -> None:
    words = why(f"{TEXT[:100]}!{TEXT[101:]}")
    assert "'!' (character 101)" in words
    assert "mistyped" in words


@pytest.mark.parametrize("place", range(len(CONTENT)))
def test_a_line_without_one_of_its_fields_is_refused(place: int) -> None:
    words = why(rendered(CONTENT[:place] + CONTENT[place + 1 :]))
    assert "fields are missing" in words


@pytest.mark.parametrize(
    ("place", "value", "field"),
    [
        (0, b"short", "mesh"),
        (0, 7, "mesh"),
        (0, MESH, "mesh"),
        (1, "not a peer!", "inviter"),
        (2, ["no address"], "addresses.0"),
        (2, list(HOME) * 9, "addresses"),
        (3, bytes(15), "invite"),
        (4, bytes(17), "secret"),
        (4, "a secret, hidden", "secret"),
        (5, -1, "not_after_unix_s"),
        (5, "soon", "not_after_unix_s"),
        (6, ["submit", "teleport"], "roles.1"),
    ],
)
def test_contents_from_the_future_name_the_field(place: int, value: object, field: str) -> None:
    words = why(rendered([*CONTENT[:place], value, *CONTENT[place + 1 :]]))
    assert f"({field}: " in words
    assert "newer version" in words


@pytest.mark.parametrize("content", [{}, 1, None, "text", b"", []])
def test_contents_of_another_shape_are_refused(content: object) -> None:
    assert "unlike this one" in why(rendered(content))


def test_contents_that_are_not_cbor_are_refused() -> None:
    data = b"\xc1\xff"
    data += hashlib.sha256(data).digest()[:4]
    assert "unlike this one" in why("kw1:" + base64.urlsafe_b64encode(data).decode().rstrip("="))


def test_what_a_later_version_appends_is_ignored() -> None:
    assert join_line.parse(rendered([*CONTENT, {"relay": 1}, "more"])) == LINE


@settings(max_examples=100)
@given(st.text(max_size=60) | st.from_regex(r"kw1:[A-Za-z0-9_-]{0,90}", fullmatch=True))
def test_any_text_is_refused_in_words(text: str) -> None:
    assert why(text)


def test_the_secret_shows_nowhere() -> None:
    assert "secret" not in repr(LINE)
    assert "secret" not in str(LINE)
    for place in range(len(CONTENT)):
        words = why(rendered([*CONTENT[:place], None, *CONTENT[place + 1 :]]))
        assert "hidden" not in words


def test_a_line_cannot_be_made_with_a_short_secret() -> None:
    with pytest.raises(ValidationError, match="secret"):
        JoinLine(**(LINE.model_dump() | {"secret": b"short"}))


def test_expiry_is_no_matter_here() -> None:
    old = LINE.model_copy(update={"not_after_unix_s": 0})
    assert join_line.parse(old.render()) == old
