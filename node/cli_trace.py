"""The journal of a task as lines for people: who did what, and what came of it.

Everything in a reply may be missing or of another kind: an older or newer node wrote it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kowalski.node import cli_render as render

if TYPE_CHECKING:
    from collections.abc import Mapping

WORDS_CHARS = 60


def trace(reply: Mapping[str, object], *, is_terminal: bool) -> str:
    """A row for each entry, and below them what the ledger did."""
    rows = [
        (
            render.field(entry, "index"),
            render.field(entry, "term"),
            render.text(entry.get("kind")).rpartition("/")[2],
            render.text(entry.get("peer_name") or render.short_peer(entry.get("peer"))),
            what(entry),
        )
        for entry in render.rows_of(reply.get("journal"))
    ]
    columns = ("ENTRY", "TERM", "WHAT", "PEER", "")
    parts = [render.table(columns, rows, is_terminal=is_terminal) if rows else "no entries"]
    ledger = reply.get("ledger")
    if isinstance(ledger, list) and ledger:
        parts += ["", "what the ledger of its submitter did:", *map(str, ledger)]
    return "\n".join(parts)


def what(entry: Mapping[str, object]) -> str:  # noqa: C901, PLR0912 flat
    """One entry in a few words."""
    match render.text(entry.get("kind")).rpartition("/")[2]:
        case "opened":
            parts = [f"mode {render.field(entry, 'mode')}", entry.get("model"), entry.get("why")]
        case "model-replied":
            parts = [
                f"call {_number(entry, 'call')}",
                entry.get("model"),
                _usage(entry),
                _head(entry, "text"),
            ]
        case "model-failed":
            parts = [f"call {_number(entry, 'call')}", entry.get("code"), entry.get("detail")]
        case "cell-started":
            parts = [_cell(entry), entry.get("language"), _head(entry, "code")]
        case "cell-finished":
            parts = [_cell(entry), entry.get("status"), _took(entry), _head(entry, "output")]
        case "cell-failed":
            parts = [_cell(entry), entry.get("code"), entry.get("detail")]
        case "sub-call-answered":
            parts = [
                f"{_cell(entry)}, call {_number(entry, 'ordinal')}",
                entry.get("model"),
                entry.get("error") or _head(entry, "text"),
            ]
        case "sub-calls-answered":
            answers = entry.get("answers")
            answers = answers if isinstance(answers, list) else []
            first = [{**one, "kind": "sub-call-answered"} for one in answers[:1]]
            parts = [f"{len(answers)} at once", *map(what, first)]
        case "cell-diverged":
            names = entry.get("names")
            parts = [_cell(entry), entry.get("detail") or "left other variables behind"]
            parts += [", ".join(map(str, names))] if isinstance(names, list) else []
        case "child-happened":
            child = entry.get("child")
            parts = [f"{_cell(entry)}, child of call {_number(entry, 'ordinal')}"]
            if isinstance(child, dict) and child:
                parts += [render.text(child.get("kind")).rpartition("/")[2], what(child)]
        case "folded":
            tokens = f"{render.field(entry, 'source_tokens')} to {render.field(entry, 'tokens')}"
            parts = [f"{tokens} tokens"]
        case "closed":
            parts = [entry.get("outcome"), entry.get("detail"), _head(entry, "answer")]
        case _:
            parts = [entry.get("limit"), entry.get("reason"), entry.get("detail")]
    return ": ".join(str(part) for part in parts if part)


def _number(entry: Mapping[str, object], name: str) -> str:
    return render.text(entry.get(name) or 0)  # nought is left out on its way


def _cell(entry: Mapping[str, object]) -> str:
    return f"cell {_number(entry, 'cell')}"


def _took(entry: Mapping[str, object]) -> str:
    seconds = entry.get("duration_s")
    return "" if seconds is None else render.duration(seconds)


def _usage(entry: Mapping[str, object]) -> str:
    usage = entry.get("usage")
    if not isinstance(usage, dict):
        return ""
    spent = [render.text(usage.get(f"{name}_tokens") or 0) for name in ("prompt", "completion")]
    return f"{spent[0]} + {spent[1]} tokens"


def _head(entry: Mapping[str, object], name: str) -> str:
    words = " ".join(str(entry.get(name) or "").split())
    return words if len(words) <= WORDS_CHARS else f"{words[: WORDS_CHARS - 3]}..."
