"""The commands that look at the mesh as a whole: topology, and top, which goes on looking."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import click

from kowalski.node import cli_render as render
from kowalski.node.cli_live import live_table
from kowalski.node.cli_session import Session, duration_option, with_session

if TYPE_CHECKING:
    from collections.abc import Mapping

TASKS_SHOWN = 10
CLEAR = "\x1b[H\x1b[2J"
PEERS_SHOWN = (
    "NAME", "STATE", "LOAD", "CPU", "MEMORY", "RTT", "MODELS", "WHY NOT", "DEVICE", "AGE",
    "LANGUAGES",
)  # fmt: skip
"""Of peers, the most important first; `peers` shows the rest."""
ABOUT_TASKS = ("TASK", "STATE", "PROMPT", "COORDINATOR", "ENTRIES", "SUBMITTED", "MODE", "TERM")


@click.command()
@with_session
def topology(session: Session) -> None:
    """How far the peers are apart: round trips from each (row) to each (column), in ms."""
    done = session.ask_node("topology", {})
    if session.as_json:
        session.print_json(done)
    else:
        session.table(matrix(done, is_terminal=render.is_terminal()))


@click.command()
@duration_option("--every", "2s", "How often to look.")
@click.option("--count", type=click.IntRange(min=1), help="Look so often, then end.")
@with_session
def top(session: Session, every: float, count: int | None) -> None:
    """Peers and tasks, live. Ends with Ctrl-C; once only where no terminal watches."""
    is_live = render.is_terminal() and not session.as_json
    looks = count or (None if is_live or session.as_json else 1)
    done = 0
    while True:
        seen = {
            "status": session.ask_node("status", {}),
            **session.ask_node("peers", {}),
            **session.ask_node("tasks", {"limit": TASKS_SHOWN}),
        }
        if session.as_json:
            session.print_json(seen)
        else:
            if is_live:
                click.echo(CLEAR, nl=False)
            session.result(screen(seen, width=_width() if is_live else None))
        sys.stdout.flush()
        done += 1
        if looks is not None and done >= looks:
            return
        time.sleep(every)


def _width() -> int:
    return shutil.get_terminal_size().columns


def matrix(reply: Mapping[str, object], *, is_terminal: bool) -> str:
    """Rows measure, columns are measured; a dash: nobody has, or has not told yet."""
    rows = render.rows_of(reply.get("matrix"))
    if len(rows) < 2:
        return "no peers to measure"
    names = [render.who(row) for row in rows]
    shown = []
    for at, row in enumerate(rows):
        values = row.get("rtt_ms")
        told = values if isinstance(values, list) else []
        cells = [
            "." if to == at else _cell(told[to] if to < len(told) else None)
            for to, _ in enumerate(rows)
        ]
        shown.append((names[at], render.duration(row.get("age_s")), *cells))
    return render.table(("FROM \\ TO", "AGE", *names), shown, is_terminal=is_terminal)


def screen(seen: Mapping[str, object], *, width: int | None = None) -> str:
    """A line about this node, its peers, and the latest tasks; `width`: of who looks on, if any."""
    status = seen.get("status")
    about = status if isinstance(status, dict) else {}
    members = about.get("members")
    counted = (
        ", ".join(f"{number} {state}" for state, number in members.items() if number)
        if isinstance(members, dict)
        else ""
    )
    head = f"{render.who(about)}  up {render.duration(about.get('uptime_s'))}  peers: {counted}"
    parts = [head.removesuffix("  peers: ")]
    warnings = about.get("warnings")
    if isinstance(warnings, list):
        parts += [f"! {render.text(warning)}" for warning in warnings]
    if width is None:
        parts.append(render.peers(seen, is_terminal=False))
        parts.append(render.tasks(seen, is_terminal=False))
        return "\n\n".join(parts)
    lines = [textwrap.fill(part, width, break_on_hyphens=False) for part in parts]
    if peers := render.peer_lines(seen):
        lines.append(live_table(render.PEER_COLUMNS, peers, width, importance=PEERS_SHOWN))
    tasks = [(render.short_task(row[0], width), *row[1:]) for row in render.task_lines(seen)]
    if tasks:
        lines.append(
            live_table(render.TASK_COLUMNS, tasks, width, importance=ABOUT_TASKS, whole=("TASK",))
        )
    else:
        lines.append("no tasks")
    return "\n\n".join(lines)


def _cell(value: object) -> str:
    number = render.number(value)
    return render.DASH if number is None else f"{number:.1f}"
