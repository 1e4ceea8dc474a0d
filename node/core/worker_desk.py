"""What a worker remembers of the cells it was asked to run: fences, sessions, finished work.

A cell is known by (task, cell): asked again when it is finished, it is answered again and not run
again. Under the same number a later coordinator may ask for other code, if it never heard of what
the one before it wrote: that is another cell, what ran is not what it thinks of, and neither is a
session in which it ran. A term below
the highest heard for a task is refused, whoever sends it. A task is known by its submitter and its
name: two who call theirs the same have nothing to do with one another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from kowalski.node.core.fences import Fences, Stale
from kowalski.protocol.ids import ContentHash, PeerId, TaskId, content_hash
from kowalski.protocol.messages.repl import CellAsked, CellDone
from kowalski.protocol.session_past import NOTHING, past_with

FINISHED_MAX = 1000

WorkKey = tuple[PeerId | None, TaskId]
"""For whom, and what they call it; None: whoever asks said nothing of it."""

SessionKey = tuple[WorkKey, str]
"""Task and language."""


def key_of(asked: CellAsked) -> WorkKey:
    return asked.claim.submitter, asked.task


def _nothing_heard() -> Fences[WorkKey]:
    return Fences()


@dataclass(frozen=True, slots=True)
class Finished:
    """A cell that has run, with the hash of its code."""

    done: CellDone
    code: ContentHash


@dataclass(frozen=True, slots=True)
class WorkerDesk:
    fences: Fences[WorkKey] = field(default_factory=_nothing_heard)
    ran: dict[SessionKey, tuple[int, ...]] = field(default_factory=dict)
    """Cells that each open session has run, in order."""
    pasts: dict[SessionKey, tuple[ContentHash, ...]] = field(default_factory=dict)
    """What each of those made of its session's past (`protocol.session_past`)."""
    finished: dict[tuple[WorkKey, int], Finished] = field(default_factory=dict)
    askers: dict[SessionKey, tuple[int, PeerId]] = field(default_factory=dict)
    """Of sessions here: in which term the last cell was begun, and for whom."""


@dataclass(frozen=True, slots=True)
class AnswerAgain:
    done: CellDone


@dataclass(frozen=True, slots=True)
class SessionLost:
    """The asker thinks of a session that is not here, or that has run other cells."""

    ran: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class RunAnew:
    """In a new session; an older one of this task and language goes."""


@dataclass(frozen=True, slots=True)
class RunOn:
    """In the session that is here."""


Decision = Stale | AnswerAgain | SessionLost | RunAnew | RunOn


def hear_term(desk: WorkerDesk, task: WorkKey, term: int) -> tuple[WorkerDesk, Stale | None]:
    fences, stale = desk.fences.hear(task, term)
    return replace(desk, fences=fences), stale


def ask(desk: WorkerDesk, asked: CellAsked) -> tuple[WorkerDesk, Decision]:
    """What to do with a request to run a cell."""
    task = key_of(asked)
    desk, stale = hear_term(desk, task, asked.term)
    if stale is not None:
        return desk, stale
    ran = desk.ran.get((task, asked.language))
    done = _done(desk, asked)
    pasts = desk.pasts.get((task, asked.language), ())
    if ran is not None and (_is_of(asked, ran, pasts) or (done and _is_of(asked, ran[:-1], pasts))):
        # In the second case the cell itself was the last: the answer got lost on its way.
        return desk, AnswerAgain(done) if done and asked.cell in ran else RunOn()
    if asked.after:
        return desk, SessionLost(ran)
    return lose(desk, (task, asked.language)), RunAnew()


def begin(desk: WorkerDesk, key: SessionKey, led: tuple[int, PeerId]) -> WorkerDesk:
    """A cell begins in a session, as `ask` has decided; `led`: in which term, and by whom."""
    return replace(desk, askers={**desk.askers, key: led})


def may_close(
    desk: WorkerDesk,
    task: WorkKey,
    term: int,
    by: PeerId,
    *,
    under_way: Iterable[tuple[int, PeerId]] = (),
) -> bool:
    """Whether the sessions of a task go at somebody's word, whose term is not stale.

    A term has one coordinator. Who is another, and has heard of no higher one, is none. Cells of
    the task that were asked for and may not have begun are `under_way`, each in a term, for whom.
    """
    askers = [*under_way, *(asker for key, asker in desk.askers.items() if key[0] == task)]
    led = max((asked_in for asked_in, _ in askers), default=0)
    return term > led or (led, by) in askers


def _is_of(asked: CellAsked, ran: tuple[int, ...], pasts: tuple[ContentHash, ...]) -> bool:
    """Whether the asker thinks of a session that has run these, with that code."""
    return asked.after == ran and asked.past in {None, (NOTHING, *pasts)[len(ran)]}


def _done(desk: WorkerDesk, asked: CellAsked) -> CellDone | None:
    """The answer, if this cell has run, and was the same."""
    known = desk.finished.get((key_of(asked), asked.cell))
    return known.done if known is not None and known.code == _code_hash(asked) else None


def _code_hash(asked: CellAsked) -> ContentHash:
    return content_hash(asked.code.encode(errors="replace"))


def finish(desk: WorkerDesk, asked: CellAsked, done: CellDone) -> WorkerDesk:
    """The cell has run; remember it as long as its session lives."""
    task = key_of(asked)
    key = (task, asked.language)
    if not done.is_session_alive or not asked.keeps_session:
        return lose(desk, key)
    finished = {**desk.finished, (task, asked.cell): Finished(done, _code_hash(asked))}
    if len(finished) > FINISHED_MAX:
        finished.pop(next(iter(finished)))
    before = len(asked.after)
    ran = (*desk.ran.get(key, ())[:before], asked.cell)
    pasts = desk.pasts.get(key, ())[:before]
    pasts = (*pasts, past_with((NOTHING, *pasts)[-1], asked.cell, asked.code))
    return replace(
        desk, ran={**desk.ran, key: ran}, pasts={**desk.pasts, key: pasts}, finished=finished
    )


def lose(desk: WorkerDesk, key: SessionKey) -> WorkerDesk:
    """A session is gone: closed, killed or evicted."""
    gone = desk.ran.get(key, ())
    return replace(
        desk,
        ran={name: cells for name, cells in desk.ran.items() if name != key},
        pasts={name: pasts for name, pasts in desk.pasts.items() if name != key},
        finished={
            name: done
            for name, done in desk.finished.items()
            if name[0] != key[0] or name[1] not in gone
        },
        askers={name: asker for name, asker in desk.askers.items() if name != key},
    )


def forget(desk: WorkerDesk, task: WorkKey) -> WorkerDesk:
    """The task is settled. Its fence stays, so that stragglers are still refused."""
    for key in [key for key in desk.ran if key[0] == task]:
        desk = lose(desk, key)
    return desk


def check(desk: WorkerDesk) -> None:
    """What must hold after every step."""
    known = {(key[0], cell) for key, cells in desk.ran.items() for cell in cells}
    assert set(desk.finished) <= known
    assert {key: len(ran) for key, ran in desk.ran.items()} == {
        key: len(pasts) for key, pasts in desk.pasts.items()
    }
    assert len(desk.finished) <= FINISHED_MAX
