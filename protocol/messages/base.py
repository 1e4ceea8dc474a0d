"""What every message is, and the replies that every conversation has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, StringConstraints
from pydantic_core import CoreSchema, core_schema

from kowalski.protocol.limits import FRAME_BYTES_DEFAULT, TEXT_BYTES_MAX

Seconds = Annotated[float, Field(ge=0, le=10_000_000, allow_inf_nan=False)]
"""A duration. Remaining time travels as one of these; points in time never do."""

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Term = Annotated[int, Field(ge=1, le=2**53)]
"""The fence of a task: who knows a higher one refuses a lower one."""

Code = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
"""A machine-readable word. Not a Literal: a newer peer may know words that we do not."""

Boot = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
"""Drawn at each start of a process: tells its runs, and two copies of one identity, apart."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=128)]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=256)]
"""As the backend calls it, such as `qwen3:8b` or `mlx-community/Llama-3.2-1B-Instruct-4bit`."""

Line = Annotated[str, StringConstraints(max_length=1024)]
"""Words for a person; cut to size by `line`."""

LINE_CHARS_MAX = 1024


@dataclass(frozen=True, slots=True)
class Utf8BytesMax:
    """Bounds a text by what it weighs on the wire; `max_length` would count its characters."""

    bytes_max: int

    def __get_pydantic_core_schema__(
        self, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def _checked(self, text: str) -> str:
        text = sayable(text)
        if len(text) * 4 > self.bytes_max and len(text.encode()) > self.bytes_max:
            raise ValueError(f"more than {self.bytes_max} bytes of UTF-8")
        return text


Text = Annotated[str, Utf8BytesMax(TEXT_BYTES_MAX)]
"""What models, programs and people say at length. Longer ones go by hash."""


def sayable(text: str) -> str:
    """`text` as UTF-8 can carry it: surrogate pairs joined, a lone half replaced by U+FFFD.

    Programs print such halves, and model servers send them when they cut between tokens.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def fitting(text: str, bytes_max: int = TEXT_BYTES_MAX) -> str:
    """`text` as a `Text`: cut between characters where it is too heavy, and made sayable."""
    text = sayable(text)
    if len(text) * 4 <= bytes_max:
        return text
    return text.encode()[:bytes_max].decode(errors="ignore")


def line(text: str) -> str:
    """`text` as a `Line`: cut where it is too long, and made sayable."""
    text = sayable(text)
    return text if len(text) <= LINE_CHARS_MAX else text[: LINE_CHARS_MAX - 2] + " …"


class Record(BaseModel):
    """A part of a message: frozen, strict, and deaf to fields that a newer peer may add."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", ser_json_bytes="base64")


class Message(Record):
    """A frame's body. `KIND` names it on the wire; `FRAME_BYTES_MAX` bounds its frame."""

    KIND: ClassVar[str] = ""
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_DEFAULT


class Refused(Message):
    """No, and nothing was done. Final.

    Reasons so far: `busy`, `stale`, `not_member`, `not_allowed`, `unsupported`, `session_lost`,
    `unknown`, `draining`.
    """

    KIND: ClassVar[str] = "base/refused"

    reason: Code
    detail: Line = ""
    retry_after_s: Seconds | None = None


class Failed(Message):
    """Tried, and it went wrong. Final.

    Codes so far: `bad_request`, `timeout`, `backend`, `sandbox`, `internal`.
    """

    KIND: ClassVar[str] = "base/failed"

    code: Code
    detail: Line = ""


class Cancel(Message):
    """The asker no longer wants the reply. The work stops; nothing is answered.

    `is_interrupted`: it, or who follows it, will ask again. What can be kept is kept for a while.
    """

    KIND: ClassVar[str] = "base/cancel"

    is_interrupted: bool = False


TraceContext = Annotated[str, Field(pattern=r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")]
"""W3C's `traceparent` (https://www.w3.org/TR/trace-context/), version 00."""


class Trace(Message):
    """What the next request on the stream belongs to. Sent with request number 0."""

    KIND: ClassVar[str] = "base/trace"

    context: TraceContext
