"""The commands about models: which there are, fetch, load and unload them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kowalski.node import cli_render as render
from kowalski.node.cli_session import Session, duration_option, given, with_session

if TYPE_CHECKING:
    from collections.abc import Mapping

GRACE_S = 30.0

on_option = click.option("--on", metavar="PEER", help="Which peer; the first that will otherwise.")
backend_option = click.option(
    "--backend", metavar="KIND", help="Which of its servers: ollama, exo."
)


class ListsByDefault(click.Group):
    """`models`, `models --json` and `models llama` are `models list` with the same words."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=ListsByDefault)
def models() -> None:
    """The models of the mesh. Without a command, what it can run now."""


@models.command("list")
@click.argument("query", default="")
@click.option("--all", "loadable", is_flag=True, help="Also what could be loaded on purpose.")
@with_session
def list_models(session: Session, query: str, loadable: bool) -> None:
    """What the mesh can run now, of which the name contains QUERY."""
    done = session.ask_node("models", given(query=query or None, loadable=loadable or None))
    if session.as_json:
        session.print_json(done)
        return
    rows = [_row(row) for row in render.rows_of(done.get("models"))]
    if rows:
        head = ("MODEL", "PEER", "SERVER", "STATE", "CONTEXT", "SIZE", "TOKENS/S", "CAN")
        session.table(render.table(head, rows, is_terminal=render.is_terminal()))
    else:
        session.say("no model; start Ollama or exo, or a node with --backend x.gguf")
    for silent in render.rows_of(done.get("silent")):
        session.say(f"{render.field(silent, 'name')} does not say: {render.field(silent, 'why')}")


def _row(row: Mapping[str, object]) -> tuple[str, ...]:
    size = render.number(row.get("size_bytes"))
    context = render.number(row.get("context_tokens"))
    speed = render.number(row.get("tokens_per_s"))
    busy = render.number(row.get("running"))
    state = render.field(row, "state")
    return (
        render.field(row, "name"),
        render.field(row, "peer_name"),
        render.field(row, "backend"),
        f"{state}, {busy:.0f} running" if busy else state,
        f"{context / 1024:.0f}k" if context else render.DASH,
        f"{size / 1e9:.1f} GB" if size else render.DASH,
        f"{speed:.0f}" if speed else render.DASH,
        render.field(row, "capabilities"),
    )


@models.command()
@click.argument("model")
@on_option
@backend_option
@duration_option("--timeout", "24h", "How long you will wait.")
@with_session
def pull(session: Session, model: str, on: str | None, backend: str | None, timeout: float) -> None:
    """Fetch MODEL to the disk of a peer, with Ollama or exo."""
    request = given(model=model, on=on, backend=backend, timeout_s=timeout)
    _follow(session, "pull", request, timeout, "ready")


@models.command()
@click.argument("model")
@on_option
@backend_option
@click.option(
    "--sharding",
    type=click.Choice(["auto", "pipeline", "tensor"]),
    default="auto",
    show_default=True,
    help="How exo splits it: layers over devices, or every layer.",
)
@click.option("--devices", "devices_min", type=click.IntRange(1, 256), help="At least so many.")
@click.option("--dry-run", is_flag=True, help="Only say in which ways, and which would be taken.")
@duration_option("--timeout", "1h", "How long you will wait.")
@with_session
def load(
    session: Session,
    *,
    model: str,
    on: str | None,
    backend: str | None,
    sharding: str,
    devices_min: int | None,
    dry_run: bool,
    timeout: float,
) -> None:
    """Load MODEL, over several devices if it is too large for one; needs exo."""
    if dry_run:
        _preview(session, given(model=model, on=on, backend=backend))
        return
    request = given(
        model=model,
        on=on,
        backend=backend,
        sharding=sharding,
        devices_min=devices_min,
        timeout_s=timeout,
    )
    _follow(session, "load", request, timeout, "loaded")


@models.command()
@click.argument("model")
@on_option
@backend_option
@click.option("--delete", "deletes", is_flag=True, help="Also from the disk.")
@with_session
def unload(
    session: Session, *, model: str, on: str | None, backend: str | None, deletes: bool
) -> None:
    """Take MODEL out of the memory of a peer."""
    request = given(model=model, on=on, backend=backend, deletes=deletes or None)
    _follow(session, "unload", request, 60.0, "deleted" if deletes else "unloaded")


def _preview(session: Session, request: dict[str, object]) -> None:
    done = session.ask_node("preview", request, silence_s=60.0)
    if session.as_json:
        session.print_json(done)
        return
    rows = [
        (
            "->" if row.get("is_chosen") else "",
            render.field(row, "sharding"),
            render.field(row, "link"),
            render.field(row, "devices"),
            f"{(render.number(row.get('bytes_max')) or 0) / 2**30:.1f} GiB",
            render.field(row, "why_not"),
        )
        for row in render.rows_of(done.get("options"))
    ]
    head = ("", "SHARDING", "LINK", "DEVICES", "MOST ON ONE", "WHY NOT")
    session.table(render.table(head, rows, is_terminal=render.is_terminal()))
    session.say(f"{render.field(done, 'model')}: {render.field(done, 'explanation')}")


def _follow(
    session: Session, verb: str, request: dict[str, object], timeout: float, end: str
) -> None:
    said = ""

    def on_event(event: dict[str, object]) -> None:
        nonlocal said
        words = _progress(event)
        if words != said:
            said = words
            session.say(words)

    done = session.ask_node(verb, request, on_event=on_event, silence_s=timeout + GRACE_S)
    if session.as_json:
        session.print_json(done)
        return
    session.result(f"{render.field(done, 'model')} {end} on {render.who(done)}")
    if done.get("detail"):
        session.say(render.field(done, "detail"))


def _progress(event: Mapping[str, object]) -> str:
    done = render.number(event.get("bytes_done")) or 0.0
    total = render.number(event.get("bytes_total")) or 0.0
    parts = [f"{render.field(event, 'name')}: {render.field(event, 'stage')}"]
    if total > 1e6:
        parts.append(f"{done / 1e9:.2f} of {total / 1e9:.2f} GB ({done / total:.0%})")
    elif total:
        parts.append(f"{done / total:.0%}")
    if event.get("detail"):
        parts.append(render.field(event, "detail"))
    return ", ".join(parts)
