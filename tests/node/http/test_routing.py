"""Which handler answers."""

import pytest

from kowalski.node.http.exchange import Exchange, HttpError
from kowalski.node.http.routing import Route, Router
from tests.node.http.exchanges import exchange

pytestmark = pytest.mark.trio


async def tell_parts(asked: Exchange, parts: dict[str, str]) -> None:
    await asked.answer_json(parts)


async def tell_for_ever(asked: Exchange, _parts: dict[str, str]) -> None:
    await asked.begin(200, [("content-type", "text/event-stream")])
    while True:
        await asked.send(b"still here")


ROUTER = Router(
    (
        Route("GET", "/tasks", tell_parts),
        Route("POST", "/tasks", tell_parts),
        Route("GET", "/tasks/{task}/events", tell_parts),
        Route("GET", "/events", tell_for_ever),
        Route("GET", "/v1/models/{model+}", tell_parts),
    )
)


async def test_parts_of_a_path_are_given_by_name() -> None:
    asked, told = exchange("GET", "/tasks/a%2Fb/events?x=1")
    with pytest.raises(HttpError):
        await ROUTER(asked)  # a slash is a slash, however it is written
    asked, told = exchange("GET", "/tasks/ab/events?x=1")
    await ROUTER(asked)
    assert told.json == {"task": "ab"}


async def test_some_parts_take_slashes() -> None:
    asked, told = exchange("HEAD", "/v1/models/mlx-community/Llama-3.2")
    await ROUTER(asked)
    assert told.headers["content-length"] == str(len('{"model":"mlx-community/Llama-3.2"}'))
    assert ROUTER.name_of(asked.request) == "/v1/models/{model+}"


@pytest.mark.parametrize("path", ["/tasks", "/v1/models/m"])
async def test_a_head_is_that_of_the_whole_answer_and_comes_alone(path: str) -> None:
    asked, whole = exchange("GET", path)
    await ROUTER(asked)
    asked, told = exchange("HEAD", path)
    await ROUTER(asked)
    assert (told.status, told.headers, told.body) == (whole.status, whole.headers, b"")
    assert told.is_ended


async def test_the_head_of_a_stream_that_never_ends_does() -> None:
    asked, told = exchange("HEAD", "/events")
    await ROUTER(asked)
    assert (told.headers, told.body) == ({"content-type": "text/event-stream"}, b"")
    assert told.is_ended


async def test_an_unknown_path_and_an_unknown_method_are_told_apart() -> None:
    with pytest.raises(HttpError) as no:
        await ROUTER(exchange("GET", "/nowhere")[0])
    assert no.value.status == 404
    with pytest.raises(HttpError) as no:
        await ROUTER(exchange("DELETE", "/tasks")[0])
    assert (no.value.status, dict(no.value.headers)) == (405, {"allow": "GET, HEAD, POST"})
    assert ROUTER.name_of(exchange("GET", "/nowhere")[0].request) == "none"


async def test_options_tell_what_a_path_takes() -> None:
    asked, told = exchange("OPTIONS", "/tasks")
    await ROUTER(asked)
    assert told.headers["allow"] == "GET, HEAD, POST"
