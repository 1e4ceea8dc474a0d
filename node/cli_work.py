"""The commands that give the mesh work: submit, run, fold. `ask` is in `cli_ask`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import click

from kowalski.node import cli_progress
from kowalski.node import cli_render as render
from kowalski.node.cli_session import (
    PROGRAM,
    TEXT_BYTES_MAX,
    Session,
    duration_option,
    given,
    read_bytes,
    text_of,
    with_session,
)
from kowalski.node.control_line import ExitCode

# What the node may take to say that it gave up, beyond the time that a request has.
ANSWER_GRACE_S = 60.0
FOLD_BYTES_MAX = 1 << 30

_LANGUAGES = {
    ".py": "python", ".sh": "bash", ".bash": "bash", ".js": "javascript", ".mjs": "javascript",
    ".ts": "typescript", ".rb": "ruby", ".pl": "perl", ".lua": "lua", ".r": "r", ".R": "r",
}  # fmt: skip

_file = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("prompt", required=False)
@click.option("--file", "-f", type=_file, help="Read the prompt from a file.")
@click.option("--context", "-c", multiple=True, type=_file, help="A file to work on; repeatable.")
@click.option("--model", "-m", help="Which model; the mesh chooses otherwise.")
@click.option("--mode", type=click.Choice(["auto", "blocks", "direct", "rlm"]), default="auto")
@duration_option("--timeout", "1h", "How long you will wait.")
@click.option("--max-iterations", type=click.IntRange(1, 1000))
@click.option("--task-id", help="A name of your own; the same name is the same task.")
@click.option("--detach", is_flag=True, help="Print the task's name once it is accepted.")
@with_session
def submit(
    session: Session,
    *,
    prompt: str | None,
    file: Path | None,
    context: tuple[Path, ...],
    model: str | None,
    mode: str,
    timeout: float,
    max_iterations: int | None,
    task_id: str | None,
    detach: bool,
) -> None:
    """Give the mesh a task and wait for its answer; PROMPT - reads stdin."""
    request = given(
        prompt=text_of(prompt, file, what="prompt"),
        mode=mode,
        model=model,
        context=_context(context),
        max_iterations=max_iterations,
        timeout_s=timeout,
        task_id=task_id,
        follow=not detach,
    )
    if detach:
        done = session.ask_node("submit", request)
        if session.as_json:
            session.print_json(done)
        else:
            session.result(render.field(done, "task"))
        return
    progress = cli_progress.Progress(timeout)
    try:
        with cli_progress.shown(progress, session.say) as on_event:
            done = session.ask_node(
                "submit", request, on_event=on_event, silence_s=timeout + ANSWER_GRACE_S
            )
    except KeyboardInterrupt:
        _left_alone(session, progress.task)
    _print_answer(session, done)


def _context(files: tuple[Path, ...]) -> list[dict[str, str]]:
    named = [(str(path) if _is_ambiguous(path, files) else path.name, path) for path in files]
    for _, path in named:
        read_bytes(path, bytes_max=1)  # a file that cannot be read is told here, not by a peer
    return [{"name": name, "path": str(path.resolve())} for name, path in named]


def _is_ambiguous(path: Path, files: tuple[Path, ...]) -> bool:
    return sum(other.name == path.name for other in files) > 1


def _left_alone(session: Session, task: str | None) -> NoReturn:
    if task is None:
        session.say("\ninterrupted")
    else:
        session.say(
            f"\nthe task goes on without you\n  look at it: {PROGRAM} tasks {task}"
            f"\n  stop it:    {PROGRAM} cancel {task}"
        )
    raise click.exceptions.Exit(ExitCode.INTERRUPTED)


def _print_answer(session: Session, done: dict[str, object]) -> None:
    has_answered = done.get("state") == "answered"
    if session.as_json:
        session.print_json(done)
    else:
        if done.get("answer"):
            session.result(str(done["answer"]))
        table = render.ran(done, is_terminal=sys.stderr.isatty())
        if table:
            session.say(f"\n{table}")
        stats = done.get("stats")
        numbers = f": {render.text(stats)}" if stats else ""
        session.say(f"task {render.field(done, 'task')} {render.field(done, 'state')}{numbers}")
        for name in ("reason", "error"):
            if not has_answered and done.get(name):
                session.say(f"  {render.field(done, name)}")
    if not has_answered:
        # The node knows better than "failed" where nobody had a model, or nobody was allowed to.
        told = done.get("exit_code")
        code = told if isinstance(told, int) and 0 < told < 128 else ExitCode.FAILED
        raise click.exceptions.Exit(code)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("file", required=False)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option("--language", "-l", help="Known from the ending of FILE otherwise.")
@click.option("--code", "-c", help="The program itself.")
@duration_option("--timeout", "10m", "How long you will wait.")
@with_session
def run(
    session: Session,
    *,
    file: str | None,
    args: tuple[str, ...],
    language: str | None,
    code: str | None,
    timeout: float,
) -> None:
    """Run one program on the best peer, its output here; FILE - reads stdin."""
    if code is not None and file is not None:
        args, file = (file, *args), None
    source = _program(file, code)
    language = language or _LANGUAGES.get(Path(file or "").suffix)
    if language is None:
        raise click.UsageError("say which --language it is")
    request = given(language=language, code=source, timeout_s=timeout, args=list(args) or None)

    def on_event(event: dict[str, object]) -> None:
        if event.get("kind") == "output":
            tell = session.say if event.get("stream") == "stderr" else session.result
            tell(str(event.get("text") or ""), newline=False)
        elif event.get("text"):
            session.say(render.field(event, "text"))

    done = session.ask_node("run", request, on_event=on_event, silence_s=timeout + ANSWER_GRACE_S)
    has_succeeded = done.get("exit_code") == 0
    if session.as_json:
        session.print_json(done)
    else:
        if done.get("error"):
            session.say(str(done["error"]).rstrip("\n"))
        session.say(_how_it_ran(done))
    if not has_succeeded:
        raise click.exceptions.Exit(ExitCode.FAILED)


def _program(file: str | None, code: str | None) -> str:
    if code is None:
        if file is None:
            raise click.UsageError("give the program as FILE, as - for stdin, or with -c")
        named = None if file == "-" else Path(file)
        return text_of("-" if named is None else None, named, what="program")
    if not code.strip():
        raise click.UsageError("the program is empty")
    return code


def _how_it_ran(done: dict[str, object]) -> str:
    exit_code = done.get("exit_code")
    end = render.field(done, "status") if exit_code is None else f"exit code {exit_code}"
    parts = [f"{end} on {render.who(done)} after {render.duration(done.get('duration_s'))}"]
    if (render.number(done.get("attempts")) or 1) > 1:
        parts.append(f"{render.field(done, 'attempts')} attempts")
    if done.get("why"):
        parts.append(render.field(done, "why"))
    return "; ".join(parts)


@click.command()
@click.argument("file", type=click.Path(allow_dash=True, dir_okay=False))
@click.option("--budget-tokens", "-b", type=click.IntRange(min=1))
@click.option("--ratio", "-r", type=click.FloatRange(0, 1, min_open=True))
@click.option("--question", "-q", help="What the text is to be asked; what matters for it stays.")
@duration_option("--timeout", "10m", "How long you will wait.")
@with_session
def fold(
    session: Session,
    *,
    file: str,
    budget_tokens: int | None,
    ratio: float | None,
    question: str | None,
    timeout: float,
) -> None:
    """Compress a text until it fits a budget of tokens; FILE - reads stdin."""
    if budget_tokens is not None and ratio is not None:
        raise click.UsageError("give --budget-tokens or --ratio, not both")
    request = given(budget_tokens=budget_tokens, ratio=ratio, question=question, timeout_s=timeout)
    silence_s = timeout + ANSWER_GRACE_S
    if file != "-":
        read_bytes(Path(file), bytes_max=1)
        request["path"] = str(Path(file).resolve())
        done = session.ask_node("fold", request, silence_s=silence_s)
    else:
        done = _fold_stdin(session, request, silence_s)
    if session.as_json:
        session.print_json(done)
        return
    session.result(str(done.get("text") or ""))
    session.say(
        f"{render.field(done, 'source_tokens')} to {render.field(done, 'tokens')} tokens"
        f" by {render.field(done, 'algorithm')} on {render.who(done)}"
    )


def _fold_stdin(
    session: Session, request: dict[str, object], silence_s: float
) -> dict[str, object]:
    content = read_bytes(None, bytes_max=FOLD_BYTES_MAX + 1)
    if len(content) > FOLD_BYTES_MAX:
        raise click.UsageError(f"more than {FOLD_BYTES_MAX} bytes on stdin")
    if len(content) <= TEXT_BYTES_MAX:
        request["text"] = content.decode("utf-8", "replace")
        return session.ask_node("fold", request, silence_s=silence_s)
    # Too long for a line of the control socket: the node reads it from a file, made for it alone.
    with tempfile.NamedTemporaryFile(prefix="kowalski-fold-") as spooled:
        spooled.write(content)
        spooled.flush()
        os.fsync(spooled.fileno())
        request["path"] = spooled.name
        return session.ask_node("fold", request, silence_s=silence_s)
