"""`kowalski-node`: the table of its commands. What they do is in the modules `cli_*` beside it.

Nothing heavy is imported before a command needs it: a question to the running node is answered
within a third of a second, with the start of Python.
"""

from __future__ import annotations

import io
import platform
import sys

import click

from kowalski import __version__
from kowalski.node import (
    cli_ask,
    cli_doctor,
    cli_drain,
    cli_explain,
    cli_folding,
    cli_http,
    cli_mcp,
    cli_mesh,
    cli_models,
    cli_run,
    cli_service,
    cli_start,
    cli_tasks,
    cli_trust,
    cli_views,
    cli_work,
)
from kowalski.node.cli_session import PROGRAM, Session, with_session


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name=PROGRAM)
def cli() -> None:
    """An agent mesh on the devices you own.

    Ends with 0 ok, 1 failed, 2 usage, 3 node not running, 4 not allowed, 5 no capacity,
    130 interrupted.
    """


@cli.command()
@with_session
def version(session: Session) -> None:
    """Which version this is."""
    facts: dict[str, object] = {
        "version": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
    if session.as_json:
        session.print_json(facts)
    else:
        session.result(f"{PROGRAM} {__version__} (Python {facts['python']}, {facts['platform']})")


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@with_session
def completion(session: Session, shell: str) -> None:
    """Print a script that completes this program's words. Source it in your shell."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    variable = f"_{PROGRAM.replace('-', '_').upper()}_COMPLETE"
    script = found(cli, {}, PROGRAM, variable).source()
    if session.as_json:
        session.print_json({"shell": shell, "script": script})
    else:
        session.result(script)


for _command in (
    cli_start.start,
    cli_work.submit,
    cli_run.run,
    cli_ask.ask,
    cli_ask.embed,
    cli_folding.fold,
    cli_folding.unfold,
    cli_folding.tokens,
    cli_models.models,
    cli_views.peers,
    cli_views.status,
    cli_mesh.top,
    cli_mesh.topology,
    cli_tasks.tasks,
    cli_tasks.attach,
    cli_tasks.cancel,
    cli_tasks.resume,
    cli_tasks.trace,
    cli_explain.explain,
    cli_trust.invite,
    cli_trust.join,
    cli_trust.leave,
    cli_trust.revoke,
    cli_drain.drain,
    cli_drain.undrain,
    cli_trust.identity,
    cli_http.token,
    cli_mcp.mcp,
    cli_service.service,
    cli_doctor.doctor,
    cli_views.config,
    cli_start.demo,
):
    cli.add_command(_command)


def main() -> None:
    """The entry point of the installed program."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal of another encoding shows what it can.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    cli(prog_name=PROGRAM)
