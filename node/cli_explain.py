"""The command that says why a task went where it did, and the words of `submit --dry-run`.

Everything in a reply may be missing or of another kind: an older or newer node wrote it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kowalski.node import cli_render as render
from kowalski.node.cli_session import Session, given, with_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Reply = dict[str, object]


@click.command()
@click.argument("task", required=False, metavar="[TASK[@SUBMITTER]]")
@with_session
def explain(session: Session, *, task: str | None) -> None:
    """Why each piece of a task went where it did.

    Who could have done it, what was known of them, what they offered, and the choice: enough to
    recompute it. Without TASK: the last choices of this node.
    """
    done = session.ask_node("explain", given(task=task))
    if session.as_json:
        session.print_json(done)
    else:
        session.table(explained(done, is_terminal=render.is_terminal()))


def dry_run(session: Session, request: Mapping[str, object]) -> None:
    """Where a task would go; ends as `submit` would, as far as that can be told."""
    asked = {name: value for name, value in request.items() if name != "follow"}
    done = session.ask_node("dry_run", asked)
    if session.as_json:
        session.print_json(done)
    else:
        session.table(would_go(done, is_terminal=render.is_terminal()))
    code = done.get("exit_code")
    if isinstance(code, int) and code:
        raise click.exceptions.Exit(code)


# --- in words -----------------------------------------------------------------------------------


def explained(reply: Mapping[str, object], *, is_terminal: bool) -> str:
    """All of a reply to `explain`."""
    parts: list[str] = []
    if reply.get("task"):
        submitter = reply.get("submitter_name") or render.short_peer(reply.get("submitter"))
        parts.append(
            f"task {render.field(reply, 'task')}: {render.field(reply, 'state')}, "
            f"submitted on {render.text(submitter)}"
        )
    parts += _reasons(reply, is_terminal=is_terminal)
    if ran := render.ran(reply, is_terminal=is_terminal):
        parts.append(f"what ran where, as the journal has it\n{_indented(ran)}")
    silent = [
        f"not known any more: what {render.who(one)} decided ({render.field(one, 'why')})"
        for one in render.rows_of(reply.get("unknown"))
    ]
    silent += [
        f"{render.who(one)} no longer knows {_older(one.get('count'))}"
        for one in render.rows_of(reply.get("forgotten"))
    ]
    parts += ["\n".join(silent)] if silent else []
    if not render.rows_of(reply.get("decisions")):
        parts.append("no choice of a peer is remembered: none was made, or it is too long ago")
    return "\n\n".join(parts)


def would_go(reply: Mapping[str, object], *, is_terminal: bool) -> str:
    """All of a reply to a dry run."""
    model = f", model {render.field(reply, 'model')}" if reply.get("model") else ""
    why = f" ({render.field(reply, 'why')})" if reply.get("why") else ""
    parts = [f"mode {render.field(reply, 'mode')}{why}{model}"]
    parts += _reasons(_of_now(reply), is_terminal=is_terminal)
    if reply.get("appointments") and not reply.get("is_named"):
        parts.append(
            "Who leads follows from the name of the task; under another name each leads with its "
            "share."
        )
    obstacle = reply.get("obstacle")
    if isinstance(obstacle, dict):
        words = f"{render.field(obstacle, 'code')}: {render.field(obstacle, 'detail')}"
        parts.append(f"It cannot be done now: {words}")
    parts.append(f"{_seen_by(reply)} Nothing was begun, and no place is held.")
    return "\n\n".join(parts)


def _older(count: object) -> str:
    return "1 older choice" if count == 1 else f"{render.text(count)} older choices"


def _seen_by(reply: Mapping[str, object]) -> str:
    leaders = render.rows_of(reply.get("appointments"))
    leader = leaders[0] if leaders else {}
    if reply.get("seen_here_because"):
        name = leader.get("name") or render.short_peer(leader.get("chosen"))
        why = render.field(reply, "seen_here_because")
        return f"As seen from this node: {render.text(name)} could not be asked ({why})."
    if reply.get("seen_by") and leader.get("chosen") == reply.get("seen_by"):
        return f"As {render.field(reply, 'seen_by_name')} sees it, who would lead."
    return "As seen from this node."


def _of_now(reply: Mapping[str, object]) -> Reply:
    """Without what means nothing of things that have not happened: when, by whom, which term."""
    unsaid = {"age_s", "by_name", "term"}
    return {
        name: [
            {key: value for key, value in row.items() if key not in unsaid}
            for row in render.rows_of(reply.get(name))
        ]
        for name in ("appointments", "decisions")
    }


def _reasons(reply: Mapping[str, object], *, is_terminal: bool) -> Iterator[str]:
    for one in render.rows_of(reply.get("appointments")):
        yield _appointment(one, is_terminal=is_terminal)
    for number, one in enumerate(render.rows_of(reply.get("decisions")), start=1):
        yield _decision(number, one, is_terminal=is_terminal)


def _appointment(told: Mapping[str, object], *, is_terminal: bool) -> str:
    why = f" ({render.field(told, 'why')})" if told.get("why") else ""
    name = told.get("name") or render.short_peer(told.get("chosen"))
    head = f"{render.text(name)} would lead"
    if told.get("term") is not None:
        head = f"term {render.field(told, 'term')}{_ago(told)}: {render.text(name)} leads{why}"
    rows = [
        (
            render.who(one),
            render.field(one, "weight"),
            render.field(one, "score"),
            render.percent(one.get("share")),
            _standing(one, told),
        )
        for one in render.rows_of(told.get("candidates"))
    ]
    columns = ("PEER", "WEIGHT", "SCORE", "SHARE OF TASKS", "")
    return f"{head}\n{_indented(render.table(columns, rows, is_terminal=is_terminal))}"


def _standing(one: Mapping[str, object], told: Mapping[str, object]) -> str:
    if one.get("peer") == told.get("chosen"):
        return "leads"
    if one.get("is_excluded"):
        return "has failed at it before"
    return "standby" if one.get("is_standby") else ""


def _decision(number: int, told: Mapping[str, object], *, is_terminal: bool) -> str:
    chosen = told.get("name") or render.short_peer(told.get("chosen"))
    by = f", by {render.field(told, 'by_name')}" if told.get("by_name") else ""
    went = f"-> {render.text(chosen)}" if told.get("chosen") else "-> nobody"
    lines = [f"{number}. {render.field(told, 'wanted')} {went}{_ago(told)}{by}"]
    why = f": {render.field(told, 'why')}" if told.get("chosen") else ""
    lines.append(f"   {_way(told)}{why}")
    if told.get("expected_s") is not None:
        lines.append(f"   expected to be done after {render.duration(told.get('expected_s'))}")
    if told.get("retry_after_s") is not None:
        lines.append(f"   worth asking again after {render.duration(told.get('retry_after_s'))}")
    candidates = render.rows_of(told.get("candidates"))
    rows = [_candidate(one, told) for one in candidates if one.get("score") is not None]
    if rows:
        columns = ("PEER", "SCORE", "BUSY", "ROUND TRIP", "SPEED", "OFFER", "DONE AFTER", "")
        lines.append(_indented(render.table(columns, rows, is_terminal=is_terminal)))
    lines += [f"   {words}" for words in _unable(candidates)]
    return "\n".join(lines)


def _unable(candidates: list[Reply]) -> Iterator[str]:
    """Who was out before anything was compared, those with the same reason together."""
    names: dict[str, list[str]] = {}
    for one in candidates:
        if one.get("score") is None:
            names.setdefault(render.field(one, "why"), []).append(render.who(one))
    for why, who in names.items():
        yield f"not {', '.join(who)}: {why}"


def _way(told: Mapping[str, object]) -> str:
    match told.get("way"):
        case "offers":
            return "by live offers" if told.get("chosen") else "all who could are full"
        case "direct":
            return "short work, without offers"
        case "only":
            return "the only one who could"
        case "bound":
            return "it had to be that one"
        case "nobody":
            return "nobody could"
        case other:
            return render.text(other)


def _candidate(one: Mapping[str, object], told: Mapping[str, object]) -> render.Row:
    offer = one.get("offer")
    offered = offer if isinstance(offer, dict) else {}
    return (
        render.who(one),
        render.field(one, "score"),
        _busy(one),
        "unmeasured" if one.get("rtt_s") is None else render.duration(one.get("rtt_s")),
        _speed(one),
        _offer(offered),
        render.duration(offered.get("expected_s")),
        _verdict(one, told),
    )


def _busy(one: Mapping[str, object]) -> str:
    numbers = [render.text(one.get(name) or 0) for name in ("running", "queued", "slots")]
    ours = f" (+{render.field(one, 'ours')} of ours)" if one.get("ours") else ""
    return f"{numbers[0]} + {numbers[1]} of {numbers[2]}{ours}"


def _speed(one: Mapping[str, object]) -> str:
    speed = one.get("tokens_per_s")
    words = f"{render.text(speed)} tokens/s" if speed is not None else render.field(one, "speed")
    slowness = render.number(one.get("slowness"))
    return words if slowness in {None, 1.0} else f"{words}, believed {slowness:.2g} times slower"


def _offer(offer: Mapping[str, object]) -> str:
    if not offer:
        return render.DASH
    waits = render.number(offer.get("wait_s"))
    words = f"{render.duration(offer.get('service_s'))}"
    words = f"{render.duration(waits)} wait + {words}" if waits else words
    cached = offer.get("cached_tokens")
    return f"{words}, {render.text(cached)} tokens cached" if cached else words


def _verdict(one: Mapping[str, object], told: Mapping[str, object]) -> str:
    if one.get("peer") == told.get("chosen"):
        return "chosen"
    if one.get("refused"):
        return f"refused: {render.field(one, 'refused')}"
    return "" if one.get("is_ready", True) else "not ready"


def _ago(told: Mapping[str, object]) -> str:
    age_s = render.number(told.get("age_s"))
    return "" if age_s is None else f", {render.duration(age_s)} ago"


def _indented(text: str) -> str:
    return "\n".join(f"   {line}" for line in text.splitlines())
