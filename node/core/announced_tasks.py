"""The tasks of the whole mesh, as their submitters announce them: what to say, and what was heard.

For finding and listing only: an announcement grants nothing. What is not newer than what was heard
of its origin is a replay or a straggler, and is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import inf

from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.task import Announced, TaskHeadline

ORIGINS_MAX = 256
TASKS_MAX = 200
"""Of one origin."""

RETIRED_BOOTS_MAX = 64
OPEN_S_MAX = 600.0
"""How long an open task is believed in whose origin has not named it again."""
OVER_S_MAX = 3600.0

SAID_BYTES_MAX = 24_000
"""Of one message, by the weight of its headlines; gossip carries 32 KiB."""
HEADLINE_BYTES = 300
"""Names and numbers of one, at most; its words come on top."""

REPEAT_S = 30.0
COUNTED_S = 5.0
"""Between two announcements that only tell of more entries."""

OVER = frozenset({"answered", "failed", "cancelled"})


# --- what to say --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Said:
    """What we have announced, and when: the driver's clock."""

    headlines: Mapping[TaskId, TaskHeadline] = field(default_factory=dict)
    counted_at: float = -inf
    repeated_at: float = -inf


def to_say(
    said: Said, headlines: Iterable[TaskHeadline], now: float
) -> tuple[Said, tuple[TaskHeadline, ...]]:
    """What to announce of our tasks as they are now, the most urgent first.

    A task that came and went between two looks is told with the next repetition only.
    """
    everything = tuple(headlines)
    repeats = now >= said.repeated_at + REPEAT_S
    counts = now >= said.counted_at + COUNTED_S
    chosen: list[TaskHeadline] = []
    size = 0
    for one in sorted(everything, key=lambda one: one.age_s):
        before = said.headlines.get(one.task)
        if not (repeats or _is_news(before, one, counts=counts)):
            continue
        size += HEADLINE_BYTES + 4 * len(one.head)
        if size > SAID_BYTES_MAX:
            break
        chosen.append(one)
    return (
        Said(
            {one.task: one for one in everything},
            now if counts else said.counted_at,
            now if repeats else said.repeated_at,
        ),
        tuple(chosen),
    )


def _is_news(before: TaskHeadline | None, one: TaskHeadline, *, counts: bool) -> bool:
    if before is None:
        return one.state not in OVER
    if (before.state, before.term, before.coordinator) != (one.state, one.term, one.coordinator):
        return True
    return counts and before.entries != one.entries


# --- what was heard -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heard:
    """`at` is when it was heard, on the driver's clock."""

    headline: TaskHeadline
    at: float


@dataclass(frozen=True, slots=True)
class Origin:
    boot: str
    sequence: int
    tasks: Mapping[TaskId, Heard] = field(default_factory=dict)
    retired_boots: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AnnouncedTasks:
    origins: Mapping[PeerId, Origin] = field(default_factory=dict)
    dropped: int = 0
    """Replays and stragglers so far."""


def hear(view: AnnouncedTasks, origin: PeerId, announced: Announced, now: float) -> AnnouncedTasks:
    known = view.origins.get(origin)
    if known is not None and not _is_newer(known, announced):
        return replace(view, dropped=view.dropped + 1)
    if known is None and len(view.origins) >= ORIGINS_MAX:
        return replace(view, dropped=view.dropped + 1)
    tasks: dict[TaskId, Heard] = {}
    retired: tuple[str, ...] = ()
    if known is not None:
        tasks = {name: one for name, one in known.tasks.items() if not _is_old(one, now)}
        retired = known.retired_boots
        if known.boot != announced.boot:
            retired = (known.boot, *retired)[:RETIRED_BOOTS_MAX]
    for one in announced.tasks:
        tasks.pop(one.task, None)
        tasks[one.task] = Heard(one, now)
    latest = dict(list(tasks.items())[-TASKS_MAX:])
    heard = Origin(announced.boot, announced.sequence, latest, retired)
    return replace(view, origins={**view.origins, origin: heard})


def _is_newer(known: Origin, announced: Announced) -> bool:
    if announced.boot == known.boot:
        return announced.sequence > known.sequence
    return announced.boot not in known.retired_boots


def _is_old(one: Heard, now: float) -> bool:
    return now > one.at + (OVER_S_MAX if one.headline.state in OVER else OPEN_S_MAX)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A task that somebody announced; `submitter` is whose it is, `origin` who said so."""

    origin: PeerId
    submitter: PeerId
    headline: TaskHeadline
    age_s: float
    """Since it was submitted, as far as we can tell."""


def listed(view: AnnouncedTasks, now: float) -> tuple[Elsewhere, ...]:
    """All of them, the latest submitted first."""
    found = [
        Elsewhere(
            name,
            one.headline.submitter or name,
            one.headline,
            one.headline.age_s + (now - one.at),
        )
        for name, origin in view.origins.items()
        for one in origin.tasks.values()
        if not _is_old(one, now)
    ]
    return tuple(sorted(found, key=lambda one: (one.age_s, one.headline.task)))


def find(view: AnnouncedTasks, task: TaskId, now: float) -> tuple[Elsewhere, ...]:
    """Those of that name: different submitters may have called theirs alike."""
    return tuple(one for one in listed(view, now) if one.headline.task == task)
