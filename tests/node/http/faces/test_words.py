"""What the faces share."""

import pytest

from kowalski.node.http.exchange import HttpError
from kowalski.node.http.faces.words import (
    asking,
    completion,
    http_error,
    model_name,
    picture,
    said_json,
)
from kowalski.protocol.errors import (
    ConfigError,
    KowalskiError,
    LocalProtocolError,
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.limits import FRAME_BYTES_MAX
from kowalski.protocol.messages.inference import ChatMessage, CompletionAsked


@pytest.mark.parametrize(
    ("error", "status", "after"),
    [
        (RequestRefusedError("busy", "full", 7.4), 429, "7"),
        (RequestRefusedError("busy", "full", 0.1), 429, "1"),
        (RequestRefusedError("no_peer", "nobody"), 503, "1"),
        (RequestRefusedError("unsupported", "no seed"), 400, None),
        (RequestRefusedError("not_allowed", "no"), 403, None),
        (RequestRefusedError("unknown", "no task"), 404, None),
        (RequestRefusedError("a-new-reason", "no"), 503, "1"),
        (RequestFailedError("timeout", "slow"), 504, None),
        (RequestFailedError("bad_request", "no"), 400, None),
        (RequestFailedError("peers_failed", "all"), 502, None),
        (PeerUnreachableError("gone"), 502, None),
        (RemoteProtocolError("nonsense"), 502, None),
        (LocalProtocolError("frame of 2 MB"), 413, None),
        (ConfigError("bad value"), 400, None),
    ],
)
def test_a_failure_tells_whether_the_client_can_mend_it(
    error: KowalskiError, status: int, after: str | None
) -> None:
    told = http_error(error)
    assert told.status == status
    assert dict(told.headers).get("retry-after") == after
    assert told.message


def test_names_that_leave_the_choice() -> None:
    assert {model_name(name) for name in ("", "auto", "Default", "*")} == {"*"}
    assert model_name("llama3.2") == "llama3.2"


def test_pictures() -> None:
    assert picture("data:image/png;base64,cG5n").data == picture("cG5n").data == b"png"
    for bad in ("!", "https://example.org/x.png"):
        with pytest.raises(HttpError):
            picture(bad)


def test_arguments_that_are_no_object_are_told_as_they_are() -> None:
    assert said_json('{"x":1}') == {"x": 1}
    assert said_json("") == {}
    assert said_json("x = 1") == {"arguments": "x = 1"}
    assert said_json("[1]") == {"arguments": [1]}


def test_a_field_out_of_bounds_is_named_with_where_it_stands() -> None:
    @asking
    def read(**fields: object) -> CompletionAsked:
        return completion(model="m", remaining_s=1.0, **fields)

    @asking
    def say(text: str) -> ChatMessage:
        return ChatMessage(role="user", content=text)

    with pytest.raises(HttpError, match=r"^max_tokens: "):
        read(messages=(), max_tokens=0)
    with pytest.raises(HttpError, match=r"^messages: content: more than 1048576 bytes"):
        say("x" * (FRAME_BYTES_MAX + 1))
