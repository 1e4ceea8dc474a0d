"""The commands about tasks, wherever they were submitted: tasks, attach, cancel, resume, trace."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import click

from kowalski.node import cli_files, cli_progress, cli_trace
from kowalski.node import cli_render as render
from kowalski.node.cli_session import PROGRAM, Session, given, seconds, with_session
from kowalski.node.control_line import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# What the node may take to say that it gave up, beyond the time that a request has.
ANSWER_GRACE_S = 60.0
CANCEL_S = 60.0
ATTACHED_S = 7 * 86_400.0

Command = TypeVar("Command", bound="Callable[..., object]")

_task = click.argument("task", metavar="TASK[@SUBMITTER]")


def _files(help_text: str) -> Callable[[Command], Command]:
    folder = click.Path(path_type=Path, file_okay=False)
    return click.option("--files", type=folder, metavar="FOLDER", help=help_text)


@click.command()
@click.argument("task", required=False, metavar="[TASK[@SUBMITTER]]")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@_files("Put what the cells of TASK left into FOLDER.")
@with_session
def tasks(session: Session, *, task: str | None, limit: int, files: Path | None) -> None:
    """The latest tasks of the mesh, or everything about one."""
    if files is not None:
        if task is None:
            raise click.UsageError("--files is of one TASK: name it")
        cli_files.save_task_files(session, task, files)
        return
    if task is not None:
        done = session.ask_node("task", {"task": task})
        if session.as_json:
            session.print_json(done)
        else:
            session.result(render.fields(done))
        return
    done = session.ask_node("tasks", {"limit": limit})
    if session.as_json:
        session.print_json(done)
    else:
        session.table(render.tasks(done, is_terminal=render.is_terminal()))


@click.command()
@_task
@_files("Put what its cells left into FOLDER, at the end.")
@with_session
def attach(session: Session, *, task: str, files: Path | None) -> None:
    """Follow a task to its end, from whatever peer. Leaving it does not stop it."""
    try:
        follow(session, "attach", {"task": task}, budget_s=None)
    except click.exceptions.Exit as ended:
        if files is not None and ended.exit_code != ExitCode.INTERRUPTED:
            cli_files.save_task_files(session, task, files)
        raise
    if files is not None:
        cli_files.save_task_files(session, task, files)


@click.command()
@_task
@with_session
def cancel(session: Session, task: str) -> None:
    """Stop a task wherever it runs. What there is of an answer is kept."""
    done = session.ask_node("cancel", {"task": task}, silence_s=CANCEL_S)
    if session.as_json:
        session.print_json(done)
    else:
        session.say(f"task {task} {render.text(done.get('state') or 'cancelled')}")


@click.command()
@_task
@click.option("--timeout", type=seconds, metavar="DURATION", help="How long it has now.")
@click.option("--max-iterations", type=click.IntRange(1, 1000))
@click.option("--follow", "-f", "follows", is_flag=True, help="And follow it to its end.")
@with_session
def resume(
    session: Session,
    *,
    task: str,
    timeout: float | None,
    max_iterations: int | None,
    follows: bool,
) -> None:
    """Go on with a task that waits or that did not end well.

    One that failed, or was cancelled. What was done is not done again. A task that is over goes on
    under another name.
    """
    request = given(task=task, timeout_s=timeout, max_iterations=max_iterations)
    done = session.ask_node("resume", request)
    if not follows:
        if session.as_json:
            session.print_json(done)
        else:
            session.result(render.field(done, "task"))
        return
    _, at, whose = task.partition("@")
    follow(session, "attach", {"task": f"{done.get('task')}{at}{whose}"}, budget_s=timeout)


@click.command()
@_task
@click.option("--trajectory", is_flag=True, help="As JSON lines for the viewer of PyPI's rlms.")
@with_session
def trace(session: Session, task: str, *, trajectory: bool) -> None:
    """The journal of a task, entry by entry.

    Below it, what its submitter did about it.
    """
    if trajectory:
        request = {"task": task, "as_trajectory": True}
        session.ask_node("trace", request, on_event=lambda one: click.echo(one.get("text")))
        return
    done = session.ask_node("trace", {"task": task})
    if session.as_json:
        session.print_json(done)
    else:
        session.table(cli_trace.trace(done, is_terminal=render.is_terminal()))


# --- following ----------------------------------------------------------------------------------


def follow(
    session: Session, verb: str, request: Mapping[str, object], *, budget_s: float | None
) -> None:
    """Show a task as it goes, then its answer; ends with its exit code."""
    progress = cli_progress.Progress(budget_s if budget_s is not None else ATTACHED_S)
    silence_s = (budget_s if budget_s is not None else ATTACHED_S) + ANSWER_GRACE_S
    try:
        with cli_progress.shown(progress, session.say) as on_event:
            done = session.ask_node(verb, dict(request), on_event=on_event, silence_s=silence_s)
    except KeyboardInterrupt:
        _left_alone(session, progress.task)
    print_answer(session, done)


def _left_alone(session: Session, task: str | None) -> NoReturn:
    if task is None:
        session.say("\ninterrupted")
    else:
        session.say(
            f"\nthe task goes on without you\n  look at it: {PROGRAM} attach {task}"
            f"\n  stop it:    {PROGRAM} cancel {task}"
        )
    raise click.exceptions.Exit(ExitCode.INTERRUPTED)


def print_answer(session: Session, done: Mapping[str, object]) -> None:
    """The answer on stdout, the rest on stderr; ends the command if the task did not end well."""
    has_answered = done.get("state") == "answered"
    if session.as_json:
        session.print_json(dict(done))
    else:
        if done.get("answer"):
            session.result(str(done["answer"]))
        table = render.ran(done, is_terminal=sys.stderr.isatty())
        if table:
            session.say(f"\n{table}")
        stats = done.get("stats")
        counted = {what: n for what, n in stats.items() if n} if isinstance(stats, dict) else {}
        numbers = f": {render.text(counted)}" if counted else ""
        session.say(f"task {render.field(done, 'task')} {render.field(done, 'state')}{numbers}")
        # An answer may have a reservation: never marked as ready, not as good as was wanted.
        for name in ("reason",) if has_answered else ("reason", "error"):
            if done.get(name):
                session.say(f"  {render.field(done, name)}")
    if not has_answered:
        # The node knows better than "failed" where nobody had a model, or nobody was allowed to.
        told = done.get("exit_code")
        code = told if isinstance(told, int) and 0 < told < 128 else ExitCode.FAILED
        raise click.exceptions.Exit(code)
