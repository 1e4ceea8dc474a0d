"""What is wrong with a request or a setting, in words for the person who wrote it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kowalski.protocol.ids import CONTENT_HASH_PATTERN, TASK_ID_PATTERN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import ValidationError

TASK_NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(@[^\x00-\x1f\x7f]{1,128})?$"
LANGUAGE_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9+#._-]{0,31}$"

_NAME_OF_TASK = "not a task's name: up to 64 letters, digits and '._-', a letter or digit first"

_IN_WORDS: Final[Mapping[str, str]] = {
    TASK_ID_PATTERN: _NAME_OF_TASK,
    TASK_NAME_PATTERN: f"{_NAME_OF_TASK}; then perhaps '@' and the name of its submitter",
    LANGUAGE_PATTERN: "not a language's name: up to 32 letters, digits and '+#._-'",
    CONTENT_HASH_PATTERN: "not a handle: `fold` prints it, 64 digits from 0 to 9 and a to f",
}
"""For those who cannot read a pattern."""


def first_complaint(error: ValidationError) -> str:
    """The first thing wrong, in one line, without the value (it may be long, or a secret)."""
    detail = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"unknown field {where!r}"
    message = detail["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    message = _IN_WORDS.get(detail.get("ctx", {}).get("pattern", ""), message)
    return f"{where}: {message}" if where else message
