"""What all commands share: how they reach the node, where they print, and how they end.

Results go to stdout, everything else to stderr; with `--json` every line of stdout is an object,
the result last. Neither trio nor pydantic nor libp2p is imported on this path.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from kowalski.node import places
from kowalski.node.cli_colours import may_colour, paint
from kowalski.node.control_client import (
    NodeGoneError,
    NodeNotRunningError,
    VerbFailedError,
    converse,
)
from kowalski.node.control_line import REQUEST_BYTES_MAX, ExitCode
from kowalski.protocol.errors import ConfigError, KowalskiError, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PROGRAM = "kowalski-node"

# JSON escapes make a text longer; this leaves room for the other fields too.
TEXT_BYTES_MAX = REQUEST_BYTES_MAX // 2

F = TypeVar("F", bound="Callable[..., None]")


class Session:
    """One run of one command."""

    def __init__(self, *, as_json: bool, data_dir: Path | None, config: Path | None) -> None:
        self.as_json = as_json
        self.data_dir = data_dir
        self.config = config

    def control_path(self) -> Path:
        return places.control_path(places.data_dir(self.data_dir, os.environ, self.config))

    def ask_node(
        self,
        verb: str,
        request: Mapping[str, object],
        *,
        on_event: Callable[[dict[str, object]], None] | None = None,
        silence_s: float = 30.0,
    ) -> dict[str, object]:
        """As `control_client.converse`; with `--json` the events are printed, not passed on."""

        def heard(event: dict[str, object]) -> None:
            if self.as_json:
                self.print_json(event)
            elif on_event is not None:
                on_event(event)

        return converse(self.control_path(), verb, request, on_event=heard, silence_s=silence_s)

    def print_json(self, value: Mapping[str, object]) -> None:
        click.echo(json.dumps(value, default=str))

    def print_failure(self, code: str, message: str, exit_code: int, hint: str | None) -> None:
        """What programs are told in place of a result."""
        failure = {"code": code, "message": message, "exit_code": exit_code, "hint": hint}
        self.print_json({"error": failure})

    def result(self, text: str, *, newline: bool = True) -> None:
        click.echo(_clean(text, is_terminal=sys.stdout.isatty()), nl=newline)

    def table(self, text: str) -> None:
        """A result of rows or fields: in colour where that is wanted."""
        cleaned = _clean(text, is_terminal=sys.stdout.isatty())
        click.echo(paint(cleaned) if may_colour(sys.stdout, os.environ) else cleaned)

    def say(self, text: str, *, newline: bool = True) -> None:
        click.echo(_clean(text, is_terminal=sys.stderr.isatty()), nl=newline, err=True)

    def fail(self, error: KowalskiError) -> NoReturn:
        """Say what went wrong, for people in one line and for programs as the last object."""
        code, exit_code, hint = _verdict(error)
        message = str(error) or type(error).__name__
        if self.as_json:
            self.print_failure(code, message, exit_code, hint)
        self.say(f"{PROGRAM}: {message}".replace("\n", " "))
        if hint:
            self.say(f"  {hint}")
        raise click.exceptions.Exit(exit_code)


def _verdict(error: KowalskiError) -> tuple[str, int, str | None]:
    match error:
        case NodeNotRunningError():
            return "not_running", ExitCode.NOT_RUNNING, f"start one with: {PROGRAM} start"
        case NodeGoneError():
            hint = f"is it still running? {PROGRAM} status"
            return "node_gone", ExitCode.NOT_RUNNING, hint
        case VerbFailedError():
            return error.code, error.exit_code, error.hint
        case ConfigError():
            return "usage", ExitCode.USAGE, None
        case RemoteProtocolError():
            hint = "is something else than this program listening there?"
            return "protocol", ExitCode.FAILED, hint
        case _:
            return "failed", ExitCode.FAILED, None


def _clean(text: str, *, is_terminal: bool) -> str:
    """Peers wrote some of this: no terminal is to obey it. A file gets the text as it is."""
    if is_terminal:
        # Its import waits until there is something to print.
        from kowalski.rlm.truncation import printable

        return printable(text)
    return text.encode("utf-8", "replace").decode("utf-8")


def with_session(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the common options, a session, and an end with the right exit code."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
    @click.option(
        "--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings in TOML."
    )
    @click.option(
        "--data-dir", type=click.Path(path_type=Path), metavar="DIR", help="Which node, if several."
    )
    @functools.wraps(command)
    def run(
        *, as_json: bool, config: Path | None, data_dir: Path | None, **options: object
    ) -> None:
        session = Session(as_json=as_json, data_dir=data_dir, config=config)
        try:
            command(session, **options)
        except KowalskiError as error:
            session.fail(error)
        except click.UsageError as error:
            if as_json:
                session.print_failure("usage", error.format_message(), ExitCode.USAGE, None)
            raise
        except KeyboardInterrupt:
            session.say("")
            raise click.exceptions.Exit(ExitCode.INTERRUPTED) from None

    return run


_UNITS_S: Mapping[str, float] = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str) -> float:
    """The type of options that take a duration: `90`, `1.5s`, `10m`, `2h`, `7d`."""
    match = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,6})?)\s*([smhd]?)\s*", text)
    if match is None or not float(match[1]):
        raise click.BadParameter(f"{text!r} is no duration such as 90, 10m or 2h")
    return float(match[1]) * _UNITS_S[match[2]]


class FiniteRange(click.FloatRange):
    """A number within bounds. click's own range lets `nan` through, which no message can say."""

    def convert(
        self,
        value: Any,  # noqa: ANN401 click's own type
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        number: float = super().convert(value, param, ctx)
        if not isfinite(number):
            self.fail(f"{value!r} is no number", param, ctx)
        return number


def duration_option(flag: str, default: str, explanation: str) -> Callable[[F], F]:
    return click.option(
        flag,
        type=seconds,
        default=default,
        show_default=True,
        metavar="DURATION",
        help=explanation,
    )


def text_of(argument: str | None, file: Path | None, *, what: str) -> str:
    """The text that a person meant: the argument, stdin for `-`, or a file.

    Raises:
        click.UsageError: none or two of them, not UTF-8, nothing but blanks, or too large.
    """
    if (argument is None) == (file is None):
        raise click.UsageError(f"give the {what} as an argument, as - for stdin, or as --file")
    if argument is not None and argument != "-":
        content = argument.encode("utf-8", "surrogateescape")
    else:
        content = read_bytes(file, bytes_max=TEXT_BYTES_MAX + 1)
    if len(content) > TEXT_BYTES_MAX:
        raise click.UsageError(
            f"the {what} is larger than {TEXT_BYTES_MAX} bytes; large inputs go in as files"
        )
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"the {what} is not UTF-8 at byte {error.start}") from error
    if not text.strip():
        raise click.UsageError(f"the {what} is empty")
    return text


def read_bytes(file: Path | None, *, bytes_max: int) -> bytes:
    """At most so much of a file, or of stdin for None.

    Raises:
        click.UsageError: it cannot be read.
    """
    if file is None:
        return sys.stdin.buffer.read(bytes_max)
    try:
        with file.open("rb") as stream:
            return stream.read(bytes_max)
    except OSError as error:
        raise click.UsageError(f"{file}: {(error.strerror or str(error)).lower()}") from error


def given(**fields: object) -> dict[str, object]:
    """The fields that are not None: the node knows the defaults."""
    return {name: value for name, value in fields.items() if value is not None}
