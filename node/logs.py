"""What a node process writes to stderr: one line a fact, UTC, for people or as JSON.

Called once, by `start`; everybody else only asks structlog for a logger. Libraries that use the
standard library's logging come out in the same form, from `warning` up.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import TYPE_CHECKING, Literal, TextIO

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from structlog.typing import Processor, WrappedLogger

LEVELS: Mapping[str, int] = logging.getLevelNamesMapping()

_SECRET = re.compile(r"key|secret|password|authorization|^token$|_token$|^join$", re.IGNORECASE)
_PLAIN = re.compile(r"[!#-<>-~]+")
_VALUE_CHARS_MAX = 4000
_DEPTH_MAX = 4


def configure_logging(
    level: str, form: Literal["pretty", "json"], *, stream: TextIO | None = None
) -> None:
    """Set up structlog and the standard logging of this process; `level` as in `NodeConfig`."""
    output = _Lines(stream or sys.stderr)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    render: Processor = as_json if form == "json" else as_text
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level.upper()]),
        logger_factory=lambda *_: output,
        cache_logger_on_first_use=False,
    )
    foreign = logging.StreamHandler(output)
    foreign.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [foreign]
    # Below warning, libraries talk to their own developers.
    root.setLevel(max(logging.WARNING, LEVELS[level.upper()]))
    logging.captureWarnings(True)


def redact(
    _logger: WrappedLogger, _method: str, fields: MutableMapping[str, object]
) -> MutableMapping[str, object]:
    """Replace what is named like a secret, also inside of mappings and lists."""
    for name in fields:
        fields[name] = _redacted(name, fields[name], 0)
    return fields


def _redacted(name: str, value: object, depth: int) -> object:
    if _SECRET.search(name) and not isinstance(value, bool | None):
        return "(not shown)"
    if depth < _DEPTH_MAX and isinstance(value, dict):
        return {key: _redacted(str(key), inner, depth + 1) for key, inner in value.items()}
    if depth < _DEPTH_MAX and isinstance(value, list | tuple):
        return [_redacted(name, inner, depth + 1) for inner in value]
    return value


def as_json(_logger: WrappedLogger, _method: str, fields: MutableMapping[str, object]) -> str:
    """One object; ASCII, so that nothing a peer said can move a terminal's cursor."""
    return json.dumps({name: _bounded(value) for name, value in fields.items()}, default=str)


def as_text(_logger: WrappedLogger, _method: str, fields: MutableMapping[str, object]) -> str:
    """Time, level, event, then `name=value`; only a traceback takes further lines."""
    time, level = fields.pop("timestamp", ""), fields.pop("level", "")
    event, traceback = fields.pop("event", ""), fields.pop("exception", None)
    parts = [str(time), f"{level!s:<7}", _word(event, spaced=True)]
    parts += [f"{name}={_word(value)}" for name, value in fields.items()]
    if traceback is not None:
        lines = str(traceback).splitlines()
        parts.append("".join(f"\n    | {_word(line, spaced=True)}" for line in lines))
    return " ".join(parts)


def _word(value: object, *, spaced: bool = False) -> str:
    text = str(_bounded(value))
    if _PLAIN.fullmatch(text) or (spaced and text.isascii() and text.isprintable()):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _bounded(value: object) -> object:
    if isinstance(value, bool | int | float | None):
        return value
    text = value if isinstance(value, str) else str(value)
    if len(text) <= _VALUE_CHARS_MAX:
        return value
    return f"{text[:_VALUE_CHARS_MAX]}... ({len(text)} characters)"


class _Lines:
    """A stream that may go away: a node outlives the terminal or the pipe it was started from."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return len(text)

    def line(self, text: str) -> None:
        self.write(f"{text}\n")
        self.flush()

    # What structlog calls, by level.
    debug = info = warning = error = critical = line

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return
