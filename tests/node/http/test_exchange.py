"""What a request says, and how an answer is put together."""

import json

import pytest

from kowalski.node.http.exchange import HttpError, Request, Response, json_object
from tests.node.http.exchanges import exchange


def test_a_target_is_taken_apart() -> None:
    request = Request("GET", "/tasks/a%20b?limit=3&empty=", {"cookie": "a=1; b = 2;c"})
    assert request.path == "/tasks/a b"
    assert request.query == {"limit": "3", "empty": ""}
    assert request.cookies == {"a": "1", "b": "2", "c": ""}


@pytest.mark.parametrize("body", [b"[1]", b"nope", b'"x"', b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(HttpError) as no:
        json_object(body)
    assert (no.value.status, no.value.code) == (400, "bad_json")


def test_a_body_may_nest_up_to_a_bound() -> None:
    deep: object = 1
    for _ in range(70):
        deep = {"x": deep}
    with pytest.raises(HttpError, match="nests"):
        json_object(json.dumps(deep).encode())
    assert json_object(b'{"a": {"b": [{}]}}') == {"a": {"b": [{}]}}


def test_no_body_is_an_empty_object() -> None:
    assert json_object(b" \n") == {}


@pytest.mark.trio
async def test_an_answer_tells_its_length_and_what_goes_with_every_answer() -> None:
    asked, told = exchange("GET", "/")
    asked.extra.append(("x-request-id", "7"))
    await asked.answer(Response(418, b"tea", "text/plain", (("x-a", "b"),)))
    assert (told.status, told.body, told.is_ended) == (418, b"tea", True)
    assert told.headers == {
        "content-type": "text/plain",
        "content-length": "3",
        "x-a": "b",
        "x-request-id": "7",
    }


@pytest.mark.trio
async def test_halves_of_characters_do_not_break_an_answer() -> None:
    asked, told = exchange("GET", "/")
    await asked.answer_json({"name": "\ud800"})
    assert told.body == b'{"name":"\\ud800"}'
