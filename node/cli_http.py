"""The commands about the HTTP server that need no running node."""

from __future__ import annotations

import os

import click

from kowalski.node.cli_session import Session, with_session


@click.command()
@click.option("--rotate", is_flag=True, help="Make a new one; the old one is void at once.")
@with_session
def token(session: Session, rotate: bool) -> None:
    """The token that other machines show to this node's HTTP server."""
    from kowalski.node.config import load_config
    from kowalski.node.http.tokens import TokenFile

    config, _ = load_config({"data_dir": session.data_dir}, os.environ, session.config)
    file = TokenFile(config.http_token_path)
    found = file.rotate() if rotate else file.ensure()
    if session.as_json:
        session.print_json({"token": found, "path": str(config.http_token_path)})
    else:
        session.result(found)
