"""The commands that become a node, or several: start and demo."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from kowalski.node.cli_session import FiniteRange, Session, with_session
from kowalski.protocol.errors import ConfigError


@click.command()
@click.option("--join", metavar="LINE", help="What `invite` printed on a device of the mesh.")
@click.option("--name", help="What others call this node; the host's name otherwise.")
@click.option("--p2p-port", type=click.IntRange(0, 65535), help="4170; 0 is any free one.")
@click.option("--http-port", type=click.IntRange(0, 65535), help="4171; 0 is any free one.")
@click.option("--http-host", help="127.0.0.1; from another address a token is needed.")
@click.option("--http-name", "http_hosts", multiple=True, help="Of this machine. Repeatable.")
@click.option("--http-origin", "http_origins", multiple=True, metavar="URL", help="Of pages.")
@click.option("--no-http", is_flag=True, default=None, help="No HTTP and no dashboard.")
@click.option("--listen-host", help="Which address to listen on; all otherwise.")
@click.option("--roles", help="By commas, of: submit coordinate repl infer fold.")
@click.option("--no-repl", is_flag=True, default=None, help="Run no code for anybody.")
@click.option("--unsafe-repl", is_flag=True, default=None, help="Run code without a sandbox.")
@click.option("--repl-slots", type=click.IntRange(min=1), help="How many programs at a time.")
@click.option(
    "--drain-s", type=FiniteRange(0, 3600), help="How long to hand over when told to stop; 5."
)
@click.option("--standby", is_flag=True, default=None, help="Work only when the others are full.")
@click.option("--cpu-share", type=FiniteRange(0, 1, min_open=True), help="0.5: half of it.")
@click.option("--quiet-hours", metavar="22:00-07:00", help="No work of others then.")
@click.option("--on-battery", is_flag=True, default=None, help="Work of others on battery, too.")
@click.option(
    "--repl-limit",
    "repl_limits",
    multiple=True,
    metavar="NAME=VALUE",
    help="What programs may use: memory=512M, js.cell=5m; see docs/how-to/limits.md. Repeatable.",
)
@click.option(
    "--repl-network",
    type=click.Choice(["none", "internet", "lan"]),
    help="What programs reach, by a proxy; nothing otherwise.",
)
@click.option("--no-mdns", is_flag=True, default=None, help="Neither announce nor look around.")
@click.option("--peer", "peers", multiple=True, metavar="MULTIADDR", help="Repeatable.")
@click.option(
    "--backend",
    "backends",
    multiple=True,
    metavar="URL|GGUF",
    help="Repeatable. URL?slots=N: how much it does at once.",
)
@click.option(
    "--model-changes",
    type=click.Choice(["nobody", "owner", "members"]),
    help="Who may have models fetched, loaded and deleted here.",
)
@click.option("--models-gb", type=click.IntRange(min=1), help="All models may take so much disk.")
@click.option(
    "--models-evict",
    type=click.Choice(["never", "pulled", "any"]),
    help="Which models make room: none, those fetched for the mesh, any.",
)
@click.option("--otlp-endpoint", metavar="URL", help="Where traces go; needs the extra otel.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
@click.option("--log-format", type=click.Choice(["pretty", "json"]))
@click.option("--until-stdin-ends", is_flag=True, help="For a node that belongs to a program.")
@with_session
def start(session: Session, /, *, until_stdin_ends: bool, **flags: object) -> None:
    """Be a node of the mesh until interrupted. Its log goes to stderr."""
    from kowalski.node.config import load_config

    if session.as_json and flags["log_format"] is None:
        flags["log_format"] = "json"
    flags["data_dir"] = session.data_dir
    config, _ = load_config(flags, os.environ, session.config)

    from kowalski.node.lean_imports import import_structlog

    import_structlog()

    import trio

    from kowalski.node import app
    from kowalski.node.logs import configure_logging

    configure_logging(config.log_level, config.log_format)
    try:
        trio.run(app.run_node, config, sys.stdin.fileno() if until_stdin_ends else None)
    except ExceptionGroup as group:
        raise _operators_error(group) from group


def _operators_error(group: ExceptionGroup[Exception]) -> Exception:
    """The one mistake in a group that holds nothing but mistakes of the operator."""
    mistakes, others = group.split(ConfigError)
    first: Exception | None = mistakes if others is None else None
    while isinstance(first, ExceptionGroup):
        first = first.exceptions[0]
    return first or group


@click.command()
@click.option("--keep", is_flag=True, help="Leave the three nodes running afterwards.")
@click.option("--model-url", metavar="URL", help="A model server for the demonstration.")
@with_session
def demo(session: Session, keep: bool, model_url: str | None) -> None:
    """Three nodes here, a real task, and the loss of one of them."""
    from kowalski.node import demo as demonstration

    data_dir: Path | None = session.data_dir
    exit_code = demonstration.main(
        json_output=session.as_json, keep=keep, data_dir=data_dir, model_url=model_url
    )
    raise click.exceptions.Exit(exit_code)
