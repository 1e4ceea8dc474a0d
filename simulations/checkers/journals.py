"""What becomes visible: once, in order, for good, and true."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from kowalski.node.core.task_ledger import Task
from kowalski.protocol.errors import RemoteProtocolError
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.task import Digest, Entry
from kowalski.rlm.journal import GENESIS, check_chain, digest
from simulations.toy_cells import run_plainly
from simulations.witness import NoChecker, Witness

OVER = frozenset({"answered", "failed", "cancelled"})


@dataclass(slots=True)
class _Visible:
    entries: list[tuple[int, Digest]] = field(default_factory=list)
    """Term and digest of each."""
    saved_term: int = 0
    end: tuple[str, str] | None = None
    """State and answer."""

    @property
    def last_digest(self) -> Digest:
        return self.entries[-1][1] if self.entries else GENESIS


class Journals(NoChecker):
    """`visible_once`, `prefix_chain`, `no_stale_visible`, `one_end`, `durable`."""

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._tasks: dict[TaskId, _Visible] = {}

    def stored(self, number: int, method: str, arguments: tuple[object, ...]) -> None:
        del number, method
        task, *more = arguments
        if not isinstance(task, Task):
            return
        known = self._tasks.setdefault(task.id, _Visible())
        entry = next((one for one in more if isinstance(one, Entry)), None)
        if entry is not None:
            self._appended(known, task, entry)
        self._ended(known, task)
        known.saved_term = task.term

    def _appended(self, known: _Visible, task: Task, entry: Entry) -> None:
        check = self.witness.check
        check(
            "visible_once",
            holds=entry.index == len(known.entries),
            words=f"{task.id}: entry {entry.index} where {len(known.entries)} is next",
        )
        check(
            "prefix_chain",
            holds=entry.parent == known.last_digest,
            words=f"{task.id}: entry {entry.index} does not follow from the one before it",
        )
        last_term = known.entries[-1][0] if known.entries else 0
        check(
            "no_stale_visible",
            holds=entry.term == known.saved_term == task.term and entry.term >= last_term,
            words=f"{task.id}: entry {entry.index} of term {entry.term} in term "
            f"{known.saved_term}, after one of term {last_term}",
        )
        check(
            "one_end",
            holds=known.end is None,
            words=f"{task.id}: entry {entry.index} after the end",
        )
        known.entries.append((entry.term, digest(task.id, entry)))

    def _ended(self, known: _Visible, task: Task) -> None:
        if task.state not in OVER:
            self.witness.check(
                "one_end",
                holds=known.end is None,
                words=f"{task.id}: {task.state} after {known.end and known.end[0]}",
            )
            return
        end = (task.state, task.answer.answer if task.answer else "")
        self.witness.check(
            "one_end",
            holds=known.end in {None, end},
            words=f"{task.id}: {end} after {known.end}",
        )
        if known.end is None:
            self.witness.note(f"{task.id}: {task.state}")
        known.end = end

    def look(self, task: Task, entries: list[Entry]) -> None:
        """What a node shows of a task now, and what is on its disk, against all that was."""
        known = self._tasks.get(task.id)
        if known is None:
            return
        digests = tuple(mark for _, mark in known.entries)
        self.witness.check(
            "durable",
            holds=task.digests == digests and len(entries) == len(digests),
            words=f"{task.id}: {task.entries} entries shown and {len(entries)} on disk, "
            f"{len(digests)} were visible",
        )
        try:
            check_chain(task.id, entries)
        except RemoteProtocolError as broken:
            self.witness.check("prefix_chain", holds=False, words=f"{task.id}: {broken}")
        end = (task.state, task.answer.answer if task.answer else "")
        self.witness.check(
            "durable",
            holds=known.end is None or known.end == end,
            words=f"{task.id}: {end[0]} shown, it had ended {known.end and known.end[0]}",
        )


def untrue_cells(events: Iterable[journal.SessionEvent]) -> list[str]:
    """`journal_is_true`: what cells printed is what their code prints after those before them.

    Of cells without sub-calls. What a cell set whose session ended with it is gone; those before it
    are run again in the next session.
    """
    codes: dict[int, tuple[str, str]] = {}
    kept: dict[str, dict[str, str]] = {}
    """By language: the variables of all cells whose sessions outlived them."""
    found: list[str] = []
    for event in events:
        match event:
            case journal.CellStarted():
                codes[event.cell] = (event.language, event.code)
            case journal.CellFinished(status="ok" | "error") if event.cell in codes:
                language, code = codes[event.cell]
                variables = dict(kept.get(language, {}))
                printed = run_plainly(code, variables)
                if printed != event.output:
                    found.append(f"cell {event.cell} printed {event.output!r}, not {printed!r}")
                if event.is_session_alive:
                    kept[language] = variables
            case _:
                pass
    return found
