"""Replies of the node as text for people.

Everything in a reply may be missing or of another kind: an older or newer node wrote it. Rich lays
out tables for a terminal, and is imported for nothing less.
"""

from __future__ import annotations

import io
import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DASH = "-"
PLAIN_WIDTH_MAX = 10_000
COLUMN_GAP = 3
"""What rich puts between two columns."""

NARROW = 100
"""Columns; a terminal of fewer has no room for whole names of tasks."""

HOT_C = 80.0
MUCH = 0.1
"""Of swap used, or of time spent waiting: less is nobody's worry."""
DISK_BYTES_LOW = 1 << 30

Row = tuple[str, ...]


def field(reply: Mapping[str, object], name: str) -> str:
    """One field as text; a dash where there is none."""
    return text(reply.get(name))


def text(value: object) -> str:
    if value is None or value in ("", [], {}, ()):
        return DASH
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.3g}"
        case list() | tuple():
            return ", ".join(text(item) for item in value)
        case dict():
            return ", ".join(f"{key} {text(item)}" for key, item in value.items())
        case _:
            return str(value)


def number(value: object) -> float | None:
    return None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)


def rows_of(value: object) -> list[dict[str, object]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def short_peer(value: object) -> str:
    """The end of a peer id: its beginning is the same for all."""
    whole = text(value)
    return whole if len(whole) <= 12 else f"..{whole[-8:]}"


def short_task(name: str, width: int) -> str:
    """In a narrow place the end of it, which is another for each task."""
    return name if width >= NARROW or len(name) <= 10 else f"..{name[-8:]}"


def who(reply: Mapping[str, object]) -> str:
    name = reply.get("name")
    return str(name) if name else short_peer(reply.get("peer"))


def duration(value: object) -> str:
    seconds = number(value)
    if seconds is None:
        return DASH
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 90:
        return f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86400:.0f} d"


def percent(value: object, *, of: float = 1.0) -> str:
    share = number(value)
    return DASH if share is None else f"{share / of * 100:.0f} %"


def table(columns: Sequence[str], rows: Sequence[Row], *, is_terminal: bool) -> str:
    """Columns side by side; one without any value is left out, but never the first."""
    kept = [
        n for n, _ in enumerate(columns) if n == 0 or any(row[n] not in {DASH, ""} for row in rows)
    ]
    columns = [columns[n] for n in kept]
    lines = [tuple(_one_line(row[n]) for n in kept) for row in rows]
    if is_terminal:
        width = shutil.get_terminal_size().columns
        if _least_width(columns, lines) > width:
            return _stacked(columns, lines, width)
        return _rich_table(columns, lines, width)
    widths = [max(len(line[n]) for line in [tuple(columns), *lines]) for n, _ in enumerate(columns)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [tuple(columns), *lines]
    )


def _one_line(cell: str) -> str:
    return " ".join(cell.split())[:PLAIN_WIDTH_MAX]


def _least_width(columns: Sequence[str], rows: Sequence[Row]) -> int:
    """What a table needs so that no word of it is broken, with the gaps between its columns."""
    words = [_longest_word(n, columns, rows) for n, _ in enumerate(columns)]
    return sum(words) + COLUMN_GAP * len(words)


def _longest_word(n: int, columns: Sequence[str], rows: Sequence[Row]) -> int:
    return max(len(word) for line in (tuple(columns), *rows) for word in line[n].split() or [""])


def _stacked(columns: Sequence[str], rows: Sequence[Row], width: int) -> str:
    """For narrow terminals: a row's fields below one another, those without a value left out."""
    import textwrap

    names = [column.lower() for column in columns]
    room = max(len(name) for name in names[1:]) if len(names) > 1 else 0
    blocks = []
    for row in rows:
        lines = [row[0]]
        for name, cell in zip(names[1:], row[1:], strict=True):
            if cell in {DASH, ""}:
                continue
            head = f"  {name.ljust(room)}  "
            indent = " " * len(head)
            lines.append(
                textwrap.fill(
                    cell, max(width, len(head) + 8), initial_indent=head, subsequent_indent=indent
                )
            )
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _rich_table(columns: Sequence[str], rows: Sequence[Row], width: int) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from kowalski.rlm.truncation import printable

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for n, column in enumerate(columns):
        made.add_column(column, overflow="fold", min_width=_longest_word(n, columns, rows))
    for row in rows:
        # Text and not str, so that nothing a peer is called turns into markup.
        made.add_row(*(Text(printable(cell)) for cell in row))
    # Without colours: what goes through here is cleaned of control characters afterwards.
    console = Console(file=io.StringIO(), width=width, no_color=True, force_terminal=False)
    console.print(made)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()).strip("\n")


def peers(reply: Mapping[str, object], *, is_terminal: bool) -> str:
    rows = peer_lines(reply)
    return table(PEER_COLUMNS, rows, is_terminal=is_terminal) if rows else "no peers"


PEER_COLUMNS = (
    "NAME", "PEER", "STATE", "AGE", "RTT", "LOAD", "CPU", "MEMORY", "DEVICE", "ADDRESS",
    "LANGUAGES", "MODELS", "ROLES", "WHY NOT",
)  # fmt: skip


def peer_lines(reply: Mapping[str, object]) -> list[Row]:
    """By `PEER_COLUMNS`."""
    return [
        (
            who(peer) + (" (this node)" if peer.get("is_self") else ""),
            short_peer(peer.get("peer")),
            text(peer.get("membership") or peer.get("state"))
            + (", draining" if peer.get("draining") else ""),
            duration(peer.get("age_s")),
            DASH if (rtt := number(peer.get("rtt_ms"))) is None else f"{rtt:.1f} ms",
            field(peer, "load"),
            percent(peer.get("cpu_percent"), of=100),
            percent(peer.get("memory_used_fraction")),
            condition(peer),
            _addresses(peer.get("addresses")),
            field(peer, "languages"),
            field(peer, "models"),
            field(peer, "roles") + (", admin" if peer.get("is_admin") else ""),
            field(peer, "why_not"),
        )
        for peer in rows_of(reply.get("peers"))
    ]


def condition(peer: Mapping[str, object]) -> str:
    """GPUs and battery, and what of the rest should worry a person."""
    parts = [
        f"GPU {percent(gpu.get('used_fraction'))}, "
        f"{percent(gpu.get('memory_used_fraction'))} of its memory"
        for gpu in rows_of(peer.get("gpus"))
    ]
    battery = peer.get("battery")
    if isinstance(battery, dict) and (charge := percent(battery.get("charge"))) != DASH:
        on = " (plugged in)" if battery.get("is_plugged") is True else ""
        parts.append(f"battery {charge}{on}")
    if (heat := number(peer.get("temperature_c"))) is not None and heat >= HOT_C:
        parts.append(f"{heat:.0f} C")
    if (swap := number(peer.get("swap_used_fraction"))) is not None and swap >= MUCH:
        parts.append(f"swap {percent(swap)}")
    pressure = peer.get("pressure")
    for name, share in pressure.items() if isinstance(pressure, dict) else ():
        if (value := number(share)) is not None and value >= MUCH:
            parts.append(f"waits for {text(name)} {percent(value)}")
    if (free := number(peer.get("disk_free_bytes"))) is not None and free < DISK_BYTES_LOW:
        parts.append(f"disk {free / 2**30:.1f} GiB free")
    return ", ".join(parts) or DASH


def _addresses(value: object) -> str:
    """The first as host and port, and how many more there are; JSON has them all."""
    known = [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
    if not known:
        return DASH
    parts = known[0].split("/")
    first = known[0] if len(parts) < 5 else f"{parts[2]}:{parts[4]}"
    return first if len(known) == 1 else f"{first} +{len(known) - 1}"


def tasks(reply: Mapping[str, object], *, is_terminal: bool) -> str:
    rows = task_lines(reply)
    return table(TASK_COLUMNS, rows, is_terminal=is_terminal) if rows else "no tasks"


TASK_COLUMNS = (
    "TASK", "STATE", "MODE", "SUBMITTER", "COORDINATOR", "TERM", "ENTRIES", "SUBMITTED", "PROMPT",
)  # fmt: skip


def task_lines(reply: Mapping[str, object]) -> list[Row]:
    """By `TASK_COLUMNS`."""
    return [
        (
            field(task, "task"),
            field(task, "state"),
            field(task, "mode"),
            text(task.get("submitter_name") or short_peer(task.get("submitter"))),
            text(task.get("coordinator_name") or short_peer(task.get("coordinator"))),
            field(task, "term"),
            field(task, "entries"),
            f"{duration(task.get('submitted_s_ago'))} ago",
            field(task, "prompt_head"),
        )
        for task in rows_of(reply.get("tasks"))
    ]


def fields(reply: Mapping[str, object]) -> str:
    """Every field on a line of its own; lists of objects below it, one a line."""
    width = max((len(name) for name in reply), default=0)
    lines: list[str] = []
    for name, value in reply.items():
        inner = rows_of(value)
        if inner:
            lines.append(f"{name}:")
            lines += [f"  {text(row)}" for row in inner]
        elif name.endswith("_s"):
            lines.append(f"{name.removesuffix('_s').ljust(width)}  {duration(value)}")
        else:
            lines.append(f"{name.ljust(width)}  {text(value)}")
    return "\n".join(lines)


def checks(reply: Mapping[str, object]) -> str:
    """What the doctor found, one line each, the cure below what is not well."""
    lines: list[str] = []
    for check in rows_of(reply.get("checks")):
        lines.append(
            f"{field(check, 'verdict'):<4}  {field(check, 'name')}: {field(check, 'found')}"
        )
        if check.get("cure"):
            lines.append(f"      {field(check, 'cure')}")
    return "\n".join(lines)


def ran(reply: Mapping[str, object], *, is_terminal: bool) -> str:
    """What ran where, and why there; empty if nothing is told."""
    rows = [
        (field(each, "what"), who(each), field(each, "why")) for each in rows_of(reply.get("ran"))
    ]
    return table(("WHAT", "PEER", "WHY"), rows, is_terminal=is_terminal) if rows else ""


def is_terminal() -> bool:
    return sys.stdout.isatty()
