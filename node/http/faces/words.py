"""What the faces share: reading clients' requests leniently, and telling failures as statuses.

A field that a client sends and nobody knows is passed over, as the servers that these clients were
written for do. One that would change the answer and cannot be honoured is refused by name.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Final, ParamSpec, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from kowalski.node.complaints import first_complaint
from kowalski.node.http.exchange import HttpError
from kowalski.protocol.errors import (
    ConfigError,
    KowalskiError,
    LocalProtocolError,
    PeerUnreachableError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.messages.inference import (
    ChatMessage,
    CompletionAsked,
    CompletionDelta,
    CompletionDone,
    Logprob,
    Tool,
    ToolCall,
)

ANY_MODEL_NAMES = frozenset({"", "auto", "default", "*"})
"""In place of a model's name: whichever the best peer prefers."""


class Lenient(BaseModel):
    """The base of what clients send; unknown fields are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


L = TypeVar("L", bound=Lenient)
P = ParamSpec("P")
R = TypeVar("R")

_PARTS: Final[Mapping[str, str]] = {
    ChatMessage.__name__: "messages: ",
    Tool.__name__: "tools: ",
    ToolCall.__name__: "tool_calls: ",
}
"""Of a request, where clients find what is built one by one."""


def schema_of(model: type[Lenient], face: str) -> dict[str, object]:
    """The JSON Schema of what clients send; `$defs` and references begin with `face`."""
    place = f"#/components/schemas/{face}{{model}}"
    schema = model.model_json_schema(ref_template=place)
    parts: dict[str, object] = schema.pop("$defs", {})
    schema.pop("title", None)
    return {**schema, "$defs": {f"{face}{name}": part for name, part in parts.items()}}


@dataclass(frozen=True, slots=True)
class Picture:
    """Bytes of an image that a client sent; large ones travel by hash."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Asked:
    """A client's request as the mesh takes it. `pictures` are those that messages number."""

    completion: CompletionAsked
    pictures: tuple[Picture, ...] = ()
    wants_stream: bool = False
    wants_usage: bool = True
    """Whether the stream ends with what it cost."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A whole answer."""

    text: str
    thinking: str
    tool_calls: tuple[ToolCall, ...]
    logprobs: tuple[Logprob, ...]
    done: CompletionDone


class Stream(Protocol):
    """An answer in pieces, in one client's language; each call gives bytes to send, or none."""

    def begin(self) -> bytes: ...

    def piece(self, delta: CompletionDelta) -> bytes: ...

    def keep_alive(self) -> bytes: ...

    def end(self, answered: Answered, where: Mapping[str, object]) -> bytes: ...

    def fail(self, error: HttpError) -> bytes:
        """The stream's last words; no client takes them for the end of an answer."""
        ...


def parse(model: type[L], body: Mapping[str, object]) -> L:
    """Raises HttpError: 400, with the field that is wrong."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise HttpError(400, "invalid_request", first_complaint(error)) from error


def refuse(body: Mapping[str, object], fields: Mapping[str, object]) -> None:
    """Refuse what cannot be honoured; `fields` gives the value that is as good as none.

    Raises:
        HttpError: 400.
    """
    for name, nothing in fields.items():
        value = body.get(name)
        if value not in (None, nothing):
            raise HttpError(400, "unsupported", f"{name} is not supported", field=name)


def asking(read: Callable[P, R]) -> Callable[P, R]:
    """`read`, which makes a request of the mesh out of a client's, with what will not fit refused.

    HttpError 400 names it: a value beyond the bounds of the wire is the client's mistake, no defect
    of ours.
    """

    @wraps(read)
    def reading(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return read(*args, **kwargs)
        except ValidationError as error:
            where = _PARTS.get(error.title, "")
            raise HttpError(400, "invalid_request", where + first_complaint(error)) from error

    return reading


def completion(**fields: object) -> CompletionAsked:
    """Of those that are not None. Raises ValidationError, see `asking`."""
    return CompletionAsked.model_validate(
        {name: value for name, value in fields.items() if value is not None}
    )


def model_name(name: str) -> str:
    return "*" if name.lower() in ANY_MODEL_NAMES else name


def picture(encoded: str) -> Picture:
    """From base64, with or without the head of a `data:` URL.

    Raises:
        HttpError: 400; also for URLs elsewhere, which a node does not fetch.
    """
    if encoded.startswith(("http://", "https://")):
        raise HttpError(400, "unsupported", "images are not fetched; send them as data: URLs")
    if encoded.startswith("data:"):
        encoded = encoded.partition(",")[2]
    try:
        return Picture(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError) as error:
        raise HttpError(400, "invalid_request", f"an image is no base64: {error}") from error


def json_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def said_json(arguments: str) -> object:
    """What a model wrote as a call's arguments, as an object; its words where they are none."""
    try:
        value = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return {"arguments": arguments}
    return value if isinstance(value, dict) else {"arguments": value}


# --- failures -----------------------------------------------------------------------------------

_REFUSED: Mapping[str, int] = {
    "busy": 429,
    "no_capacity": 429,
    "no_peer": 503,
    "draining": 503,
    "unsupported": 400,
    "too_long": 400,
    "too_large": 413,
    "not_allowed": 403,
    "conflict": 409,
    "unknown": 404,
}
_FAILED: Mapping[str, int] = {
    "bad_request": 400,
    "timeout": 504,
    "internal": 500,
    "too_long": 502,
}


def http_error(error: KowalskiError) -> HttpError:
    """A failure of the mesh as a status: 4xx where the asker can mend it, 5xx where it cannot."""
    match error:
        case RequestRefusedError():
            status = _REFUSED.get(error.reason, 503)
            wait_s = error.retry_after_s
            if wait_s is None and status in {429, 503}:
                wait_s = 1.0
            after = () if wait_s is None else (("retry-after", str(max(1, round(wait_s)))),)
            return HttpError(status, error.reason, error.detail or error.reason, headers=after)
        case RequestFailedError():
            return HttpError(_FAILED.get(error.code, 502), error.code, error.detail or error.code)
        case PeerUnreachableError():
            return HttpError(502, "unreachable", str(error))
        case ConfigError():
            return HttpError(400, "invalid_request", str(error))
        case LocalProtocolError():
            return HttpError(413, "too_large", f"the request does not fit a message: {error}")
        case _:
            return HttpError(502, "failed", str(error))
