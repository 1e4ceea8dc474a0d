"""The commands for a device that is about to leave: drain, undrain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kowalski.node import cli_render as render
from kowalski.node.cli_session import Session, duration_option, with_session
from kowalski.node.control_line import ExitCode

if TYPE_CHECKING:
    from collections.abc import Mapping

ANSWER_GRACE_S = 30.0


@click.command()
@duration_option("--timeout", "60s", "How long to wait for what cannot be handed over.")
@click.option("--no-wait", is_flag=True, help="Do not wait at all.")
@with_session
def drain(session: Session, timeout: float, no_wait: bool) -> None:
    """Hand over what this node does, so that it can be switched off.

    It takes no more work until `undrain` or its next start. Tasks that it leads go to other peers,
    and so do sessions; what runs is waited for. Ends with 1 if something is left then.
    """

    def show(event: Mapping[str, object]) -> None:
        if not session.as_json:
            session.say(f"still here: {_left(event)}")

    timeout_s = 0.0 if no_wait else timeout
    done = session.ask_node(
        "drain", {"timeout_s": timeout_s}, on_event=show, silence_s=timeout_s + ANSWER_GRACE_S
    )
    _print(session, done)
    if not (done.get("is_empty") or no_wait):
        raise click.exceptions.Exit(ExitCode.FAILED)


@click.command()
@with_session
def undrain(session: Session) -> None:
    """Take work again."""
    _print(session, session.ask_node("undrain", {}))


def _print(session: Session, done: Mapping[str, object]) -> None:
    if session.as_json:
        session.print_json(done)
    elif not done.get("draining"):
        session.say("this node takes work")
    elif done.get("is_empty"):
        session.say("nothing is left here: this node can go")
    else:
        left = done.get("left")
        words = _left(left) if isinstance(left, dict) else render.DASH
        session.say(f"this node takes no more work; still here: {words}")


def _left(numbers: Mapping[str, object]) -> str:
    parts = [
        f"{count} {kind[:-1] if count == 1 else kind}"
        for kind in ("tasks", "jobs", "sessions")
        if (count := numbers.get(kind))
    ]
    return ", ".join(parts) or "nothing"
