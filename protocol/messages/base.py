"""What every message is, and the replies that every conversation has."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from kowalski.protocol.limits import FRAME_BYTES_DEFAULT

Seconds = Annotated[float, Field(ge=0, le=10_000_000, allow_inf_nan=False)]
"""A duration. Remaining time travels as one of these; points in time never do."""

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Term = Annotated[int, Field(ge=1, le=2**53)]
"""The fence of a task: who knows a higher one refuses a lower one."""

Code = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
"""A machine-readable word. Not a Literal: a newer peer may know words that we do not."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Line = Annotated[str, StringConstraints(max_length=1024)]
"""Words for a person; cut to size by `line`."""

LINE_CHARS_MAX = 1024


def line(text: str) -> str:
    """`text` as a `Line`: cut where it is too long."""
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
    """The asker no longer wants the reply. The work stops; nothing is answered."""

    KIND: ClassVar[str] = "base/cancel"
