"""The commands that look at the mesh, and the small ones that steer it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from kowalski.node import cli_render as render
from kowalski.node.cli_session import Session, with_session

if TYPE_CHECKING:
    from collections.abc import Mapping


PENDING = ("connected", "asking", "refused")


@click.command()
@click.option("--pending", is_flag=True, help="Only strangers: who knocked, and why not let in.")
@with_session
def peers(session: Session, pending: bool) -> None:
    """Who is in the mesh, and how busy."""
    done = session.ask_node("peers", {})
    if pending:
        rows = render.rows_of(done.get("peers"))
        done = {**done, "peers": [row for row in rows if row.get("state") in PENDING]}
    if session.as_json:
        session.print_json(done)
    else:
        session.table(render.peers(done, is_terminal=render.is_terminal()))


@click.command()
@with_session
def status(session: Session) -> None:
    """What the node on this machine is and does."""
    _print_fields(session, session.ask_node("status", {}))


@click.group()
def config() -> None:
    """The settings of the node."""


@config.command("show")
@with_session
def show(session: Session) -> None:
    """Every setting with where it comes from."""
    from kowalski.node.config import load_config, settings

    loaded, sources = load_config({"data_dir": session.data_dir}, os.environ, session.config)
    lines = settings(loaded, sources)
    if session.as_json:
        rows = {line.key: {"value": line.value, "source": line.source} for line in lines}
        session.print_json({"settings": rows})
        return
    rows_shown = [(line.key, render.text(line.value), line.source) for line in lines]
    session.table(
        render.table(("KEY", "VALUE", "FROM"), rows_shown, is_terminal=render.is_terminal())
    )


def _print_fields(session: Session, done: Mapping[str, object]) -> None:
    if session.as_json:
        session.print_json(done)
    else:
        session.table(render.fields(done))
