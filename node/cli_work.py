"""The command that gives the mesh a task. Single pieces of work have modules of their own."""

from __future__ import annotations

from pathlib import Path

import click

from kowalski.node import cli_explain
from kowalski.node import cli_render as render
from kowalski.node.cli_loop_options import loop_options, loop_request
from kowalski.node.cli_session import (
    Session,
    duration_option,
    given,
    read_bytes,
    seconds,
    text_of,
    with_session,
)
from kowalski.node.cli_tasks import follow

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
@click.option(
    "--detach",
    is_flag=True,
    help="Hand it to three devices, print its name, and go: any of the mesh attaches to it.",
)
@click.option("--dry-run", is_flag=True, help="Say where it would go now, and begin nothing.")
@click.option(
    "--priority",
    type=click.Choice(["batch", "normal", "interactive"]),
    help="Which of the tasks that wait begin first.",
)
@click.option(
    "--failover",
    type=click.Choice(["redistribute", "fail", "queue"]),
    help="When a device is lost: go on elsewhere, fail, or wait for one that is able.",
)
@click.option("--retries", type=click.IntRange(0, 64), help="How often lost work is begun again.")
@click.option("--retry-delay", type=seconds, metavar="DURATION", help="The pause before, doubling.")
@click.option(
    "--if-submitter-goes",
    type=click.Choice(["hold", "abort"]),
    help="When this node goes away: finish and keep the answer, or stop.",
)
@click.option("--at-most-once", is_flag=True, help="No cell may run twice, whatever is lost.")
@loop_options
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
    dry_run: bool,
    priority: str | None,
    failover: str | None,
    retries: int | None,
    retry_delay: float | None,
    if_submitter_goes: str | None,
    at_most_once: bool,
    **loop: object,
) -> None:
    """Give the mesh a task and wait for its answer. PROMPT - reads stdin."""
    request = given(
        prompt=text_of(prompt, file, what="prompt"),
        mode=mode,
        model=model,
        context=_context(context),
        max_iterations=max_iterations,
        timeout_s=timeout,
        task_id=task_id,
        follow=not detach,
        detach=detach or None,
        priority=priority,
        failover=failover,
        retries_max=retries,
        retry_delay_s=retry_delay,
        submitter_gone=if_submitter_goes,
        side_effects="at_most_once" if at_most_once else None,
    )
    request |= loop_request(loop)
    if dry_run:
        cli_explain.dry_run(session, request)
        return
    if not detach:
        follow(session, "submit", request, budget_s=timeout)
        return
    done = session.ask_node("submit", request)
    if session.as_json:
        session.print_json(done)
    else:
        session.result(render.field(done, "task"))
        if note := done.get("note"):
            session.say(str(note))


def _context(files: tuple[Path, ...]) -> list[dict[str, str]]:
    named = [(str(path) if _is_ambiguous(path, files) else path.name, path) for path in files]
    for _, path in named:
        read_bytes(path, bytes_max=1)  # a file that cannot be read is told here, not by a peer
    return [{"name": name, "path": str(path.resolve())} for name, path in named]


def _is_ambiguous(path: Path, files: tuple[Path, ...]) -> bool:
    return sum(other.name == path.name for other in files) > 1
