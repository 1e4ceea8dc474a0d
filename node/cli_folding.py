"""The commands of folding: shorten a text, and get the original back."""

from __future__ import annotations

import os
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kowalski.node import cli_render as render
from kowalski.node.cli_session import (
    TEXT_BYTES_MAX,
    FiniteRange,
    Session,
    duration_option,
    given,
    read_bytes,
    text_of,
    with_session,
)
from kowalski.node.cli_tasks import ANSWER_GRACE_S

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLD_BYTES_MAX = 1 << 30
NAME_BYTES = 200


@click.command()
@click.argument("file", type=click.Path(allow_dash=True, dir_okay=False))
@click.option("--budget-tokens", "-b", type=click.IntRange(min=1))
@click.option("--ratio", "-r", type=FiniteRange(0, 1, min_open=True))
@click.option("--question", "-q", help="What the text is to be asked; what matters for it stays.")
@click.option(
    "--model",
    "-m",
    help="Have this model summarise it, and check that; '*' for any. Default: none.",
)
@click.option("--fits", metavar="MODEL", help="The budget is in tokens as this model counts them.")
@duration_option("--timeout", "10m", "How long you will wait.")
@with_session
def fold(
    session: Session,
    *,
    file: str,
    fits: str | None,
    budget_tokens: int | None,
    ratio: float | None,
    question: str | None,
    model: str | None,
    timeout: float,
) -> None:
    """Compress a text until it fits a budget of tokens. FILE - reads stdin.

    The original stays on this node for a day; `unfold` and the handle bring it back.
    """
    if budget_tokens is not None and ratio is not None:
        raise click.UsageError("give --budget-tokens or --ratio, not both")
    request = given(
        budget_tokens=budget_tokens,
        ratio=ratio,
        question=question,
        model=model,
        fits=fits,
        timeout_s=timeout,
    )
    silence_s = timeout + ANSWER_GRACE_S
    if file != "-":
        read_bytes(Path(file), bytes_max=1)
        request["path"] = str(Path(file).resolve())
        done = _asked(session, request, silence_s)
    else:
        done = _fold_stdin(session, request, silence_s)
    if session.as_json:
        session.print_json(done)
        return
    session.result(str(done.get("text") or ""))
    if fits and done.get("is_estimate"):
        session.say(f"estimated: no peer that can be reached counts for {fits}")
    elif fits:
        session.say(
            f"{done['tokens']} tokens as {render.field(done, 'counted_by')} counts for {fits}"
        )
    session.say(
        f"{render.field(done, 'source_tokens')} to {render.field(done, 'tokens')} tokens"
        f" by {render.field(done, 'algorithm')} on {render.who(done)}"
    )
    for words in _more(done):
        session.say(words)


def _more(done: Mapping[str, object]) -> list[str]:
    """What became of the facts, where a model folded; what failed; and the handle."""
    said: list[str] = []
    if "facts" in done:
        said.append(
            f"{render.field(done, 'facts_kept')} of {render.field(done, 'facts')} facts kept,"
            f" {render.field(done, 'facts_told')} of them by the model;"
            f" {render.field(done, 'made_up')} made-up sentences left out"
        )
    if done.get("failure"):
        said.append(f"without the model in places: {render.field(done, 'failure')}")
    if done.get("handle"):
        said.append(f"kowalski-node unfold {render.field(done, 'handle')}")
    return said


def _asked(session: Session, request: dict[str, object], silence_s: float) -> dict[str, object]:
    def on_event(event: dict[str, object]) -> None:
        if event.get("kind") == "progress":
            session.say(
                f"part {render.field(event, 'parts_done')} by {render.field(event, 'name')}"
            )

    return session.ask_node("fold", request, on_event=on_event, silence_s=silence_s)


def _fold_stdin(
    session: Session, request: dict[str, object], silence_s: float
) -> dict[str, object]:
    content = read_bytes(None, bytes_max=FOLD_BYTES_MAX + 1)
    if len(content) > FOLD_BYTES_MAX:
        raise click.UsageError(f"more than {FOLD_BYTES_MAX} bytes on stdin")
    request["name"] = content[:NAME_BYTES].decode("utf-8", "replace") or "text"
    if len(content) <= TEXT_BYTES_MAX:
        request["text"] = content.decode("utf-8", "replace")
        return _asked(session, request, silence_s)
    # Too long for a line of the control socket: the node reads it from a file, made for it alone.
    with tempfile.NamedTemporaryFile(prefix="kowalski-fold-") as spooled:
        spooled.write(content)
        spooled.flush()
        os.fsync(spooled.fileno())
        request["path"] = spooled.name
        return _asked(session, request, silence_s)


@click.command()
@click.argument("file", type=click.Path(allow_dash=True, dir_okay=False))
@click.option("--model", "-m", required=True, help="For which model.")
@with_session
def tokens(session: Session, *, file: str, model: str) -> None:
    """How many tokens a text is for a model. FILE - reads stdin.

    As its server counts (llama-server, vLLM, SGLang), or by its tokenizer file (extra `[tokens]`);
    else an estimate, and that is said.
    """
    if file != "-":
        read_bytes(Path(file), bytes_max=1)
        request = {"model": model, "path": str(Path(file).resolve())}
    else:
        request = {"model": model, "text": text_of("-", None, what="text")}
    done = session.ask_node("tokens", request, silence_s=ANSWER_GRACE_S)
    if session.as_json:
        session.print_json(done)
        return
    session.result(render.field(done, "tokens"))
    if done.get("is_estimate"):
        session.say("an estimate: no peer that can be reached counts for this model")
    else:
        session.say(f"as {render.field(done, 'name')} counts for {render.field(done, 'model')}")


@click.command()
@click.argument("handle", required=False)
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Into a file."
)
@click.option("--question", "-q", help="Only what may answer it; without HANDLE: in which folds.")
@click.option("--count", "-n", type=click.IntRange(1, 8), help="Without HANDLE: how many; else 3.")
@click.option(
    "--budget-tokens", "-b", type=click.IntRange(min=1), help="Of that; 1000 if not given."
)
@duration_option("--timeout", "1m", "How long you will wait.")
@with_session
def unfold(
    session: Session,
    *,
    handle: str | None,
    output: Path | None,
    question: str | None,
    count: int | None,
    budget_tokens: int | None,
    timeout: float,
) -> None:
    """The original of a fold, byte for byte.

    From whichever peer holds it. With --question and without HANDLE: the folds of this node that
    are nearest to it, by their words and, where a peer has a model for that, by vectors.
    """
    if budget_tokens is not None and not question:
        raise click.UsageError("--budget-tokens goes with --question")
    if handle is None:
        if not question or output is not None or budget_tokens is not None:
            raise click.UsageError("give a HANDLE, or --question alone")
        _nearest(session, given(question=question, count=count, timeout_s=timeout), timeout)
        return
    if count is not None:
        raise click.UsageError("--count goes without HANDLE")
    request = given(
        handle=handle.lower(), question=question, budget_tokens=budget_tokens, timeout_s=timeout
    )
    done = session.ask_node("unfold", request, silence_s=timeout + ANSWER_GRACE_S)
    if session.as_json:
        session.print_json(done)
        return
    files = render.rows_of(done.get("files"))
    original = Path(str(files[0].get("path"))) if files else None
    data = original.read_bytes() if original else str(done.get("text") or "").encode()
    if output is None:
        click.echo(data, nl=False)
        return
    try:
        output.write_bytes(data)
    except OSError as error:
        raise click.UsageError(f"{output}: {(error.strerror or str(error)).lower()}") from error
    session.say(f"{len(data)} bytes in {output}")


def _nearest(session: Session, request: dict[str, object], timeout: float) -> None:
    done = session.ask_node("folds", request, silence_s=timeout + ANSWER_GRACE_S)
    if session.as_json:
        session.print_json(done)
        return
    folds = render.rows_of(done.get("folds"))
    for one in folds:
        session.result(f"{render.field(one, 'handle')}  {one['score']:.2f}  {one['name']}")
        session.result(textwrap.indent(str(one["text"]), "    "))
    how = f"by words and {render.field(done, 'model')}" if done.get("model") else "by words"
    session.say(f"{len(folds)} of {render.field(done, 'searched')} folds, {how}")
    if done.get("why_not"):
        session.say(f"without vectors: {render.field(done, 'why_not')}")
