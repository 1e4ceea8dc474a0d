"""The options of `submit` about the loop, and what they ask of the node."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kowalski.node.cli_session import FiniteRange, given, read_bytes, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SCHEMA_FILE_BYTES_MAX = 256 * 1024

Command = TypeVar("Command", bound="Callable[..., object]")

_OPTIONS = (
    click.option("--calls", type=click.IntRange(1, 1_000_000), help="Model calls it may use."),
    click.option("--tokens", type=click.IntRange(1, 10**12), help="Tokens it may use."),
    click.option("--depth", type=click.IntRange(0, 8), help="Levels of child sessions; 1."),
    click.option(
        "--quality",
        type=FiniteRange(0, 1),
        help="How good a model must judge the answer, from 0 to 1.",
    ),
    click.option(
        "--schema",
        type=click.Path(path_type=Path, dir_okay=False),
        help="A JSON schema, in a file, that the answer is to fit.",
    ),
    click.option("--drafts", type=click.IntRange(1, 16), help="Answers at once, made one."),
    click.option("--sub-model", help="Whom cells ask where they name none."),
    click.option("--fold-model", help="Who summarises older turns; no model otherwise."),
    click.option("--temperature", type=FiniteRange(0, 2)),
    click.option("--seed", type=click.IntRange(0, 2**53)),
    click.option("--cell-timeout", type=seconds, metavar="DURATION", help="Of one cell; 30s."),
    click.option("--ask-again", is_flag=True, help="Ask also what was asked before in the task."),
    click.option(
        "--devices",
        type=click.Choice(["all", "local", "network"]),
        help="Where its work may go: anywhere, nowhere but here, anywhere but here.",
    ),
)


def loop_options(command: Command) -> Command:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def loop_request(options: Mapping[str, Any]) -> dict[str, object]:
    """The fields of a `submit` request, for the options that were given."""
    schema: Path | None = options["schema"]
    text = None
    if schema is not None:
        text = read_bytes(schema, bytes_max=SCHEMA_FILE_BYTES_MAX).decode("utf-8", "replace")
    return given(
        calls_max=options["calls"],
        tokens_max=options["tokens"],
        depth=options["depth"],
        quality=options["quality"],
        json_schema=text,
        drafts=options["drafts"],
        sub_model=options["sub_model"],
        fold_model=options["fold_model"],
        temperature=options["temperature"],
        seed=options["seed"],
        cell_timeout_s=options["cell_timeout"],
        answers_once=False if options["ask_again"] else None,
        devices=options["devices"],
    )
