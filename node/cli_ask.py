"""The commands that call one model: `ask`, and `embed` for vectors."""

from __future__ import annotations

from pathlib import Path

import click

from kowalski.node import cli_render as render
from kowalski.node.cli_session import (
    FiniteRange,
    Session,
    duration_option,
    given,
    read_bytes,
    text_of,
    with_session,
)

# What the node may take to say that it gave up, beyond the time that a request has.
ANSWER_GRACE_S = 60.0
SCHEMA_BYTES_MAX = 256 * 1024

_file = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("prompt", required=False)
@click.option("--file", "-f", type=_file, help="Read the prompt from a file.")
@click.option("--system", "-s", help="What the model is told before the prompt.")
@click.option("--model", "-m", help="Which model; the mesh chooses otherwise.")
@click.option("--max-tokens", type=click.IntRange(min=1))
@click.option("--temperature", type=FiniteRange(0, 10))
@click.option("--top-p", type=FiniteRange(0, 1))
@click.option("--seed", type=click.IntRange(min=0))
@click.option("--stop", multiple=True, help="A text that ends the answer; repeatable.")
@click.option("--schema", type=_file, help="A JSON schema, in a file, that the answer is to fit.")
@click.option("--thinking", type=click.Choice(["off", "on", "low", "medium", "high"]))
@click.option("--image", "images", multiple=True, type=_file, help="A picture; repeatable.")
@duration_option("--timeout", "10m", "How long you will wait.")
@with_session
def ask(
    session: Session,
    *,
    prompt: str | None,
    file: Path | None,
    schema: Path | None,
    stop: tuple[str, ...],
    images: tuple[Path, ...],
    timeout: float,
    **options: object,
) -> None:
    """Call one model on the best peer that has it. PROMPT - reads stdin."""
    request = given(
        prompt=text_of(prompt, file, what="prompt"),
        json_schema=_schema(schema),
        stop=list(stop) or None,
        images=[str(image.resolve()) for image in images] or None,
        timeout_s=timeout,
        **options,
    )
    printed = ""

    def on_event(event: dict[str, object]) -> None:
        nonlocal printed
        if event.get("kind") == "delta":
            delta = str(event.get("text") or "")
            printed = (printed + delta)[-1:]
            session.result(delta, newline=False)
        elif event.get("kind") == "thinking":
            session.say(str(event.get("text") or ""), newline=False)
        elif event.get("text"):
            session.say(render.field(event, "text"))

    done = session.ask_node("ask", request, on_event=on_event, silence_s=timeout + ANSWER_GRACE_S)
    if session.as_json:
        session.print_json(done)
        return
    session.result("" if printed else str(done.get("text") or ""), newline=printed != "\n")
    session.say(f"{render.field(done, 'model')} on {render.who(done)}{_usage(done)}")


def _schema(path: Path | None) -> str | None:
    if path is None:
        return None
    content = read_bytes(path, bytes_max=SCHEMA_BYTES_MAX + 1)
    if len(content) > SCHEMA_BYTES_MAX:
        raise click.UsageError(f"{path}: a schema of more than {SCHEMA_BYTES_MAX} bytes")
    return content.decode("utf-8", "replace")


def _usage(done: dict[str, object]) -> str:
    usage = done.get("usage")
    if not isinstance(usage, dict):
        return ""
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    about = "about " if usage.get("is_estimate") else ""
    cached = f" ({usage['cached_tokens']} cached)" if usage.get("cached_tokens") else ""
    return f"; {about}{prompt}{cached} + {completion} tokens"


@click.command()
@click.argument("texts", nargs=-1)
@click.option("--model", "-m", required=True, help="Which model.")
@click.option("--file", "-f", type=_file, help="One text a line.")
@click.option("--dimensions", type=click.IntRange(1, 65_536))
@duration_option("--timeout", "10m", "How long you will wait.")
@with_session
def embed(
    session: Session,
    *,
    texts: tuple[str, ...],
    model: str,
    file: Path | None,
    dimensions: int | None,
    timeout: float,
) -> None:
    """Vectors of TEXTS, as JSON. - reads texts from stdin, one a line."""
    if texts and texts != ("-",) and file is not None:
        raise click.UsageError("give the texts as arguments or as --file, not both")
    wanted = list(texts)
    if file is not None or texts in ((), ("-",)):
        told = text_of("-" if file is None else None, file, what="text")
        wanted = [line for line in told.splitlines() if line.strip()]
    request = given(texts=wanted, model=model, dimensions=dimensions, timeout_s=timeout)
    done = session.ask_node("embed", request, silence_s=timeout + ANSWER_GRACE_S)
    session.print_json(done)
