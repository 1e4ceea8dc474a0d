"""In what session a cell runs: in one that holds what its asker's journal has before it.

Whoever wrote the cells, and whenever: a journal is read off the wires here, where `work.Executions`
compares the cells of a plan with the plan.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

from kowalski.node.repl.scripted_sessions import ScriptedState
from kowalski.protocol import codec
from kowalski.protocol.errors import RemoteProtocolError
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages import task as wire
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.copies import CopyAsked, CopyFound, CopyOffered
from kowalski.protocol.messages.journal import CellFailed, CellFinished, CellStarted
from kowalski.protocol.messages.repl import CellAsked, CellDone
from simulations.checkers.submitters import Submitters
from simulations.witness import NoChecker, Said, Witness

BODIES_KEPT = 2048
"""An entry is offered to a submitter and to standbys, and found by whoever leads next."""

CellEvent = CellStarted | CellFinished | CellFailed

Book = tuple[int, int, TaskId]
"""A task as one node knows it: whose node, the submitter's, the name."""


@dataclass(frozen=True, slots=True)
class _Cell:
    """A number in a journal. Of several codes one is there, and nobody outside knows which."""

    language: str
    codes: frozenset[str]
    may_count: bool = False
    """It may have ended with its session alive: then it is in the session of those after it."""
    may_be_gone: bool = False
    """It may have died with its session, and is not run again in the next."""
    is_open: bool = True
    """How it has ended is not known."""

    def ended(self, *, is_session_alive: bool) -> _Cell:
        if is_session_alive:
            return replace(self, may_count=True, is_open=False)
        return replace(self, may_be_gone=True, is_open=False)

    def or_else(self, other: _Cell) -> _Cell:
        return replace(
            self,
            codes=self.codes | other.codes,
            may_count=self.may_count or other.may_count,
            may_be_gone=self.may_be_gone or other.may_be_gone,
            is_open=self.is_open and other.is_open,
        )


@dataclass(slots=True)
class _Journal:
    """What a node's journal of a task can be, as far as cells go."""

    term: int = 0
    written: dict[int, _Cell] = field(default_factory=dict)
    """What it was given as accepted, has offered or asked for in this term."""
    perhaps: dict[int, _Cell] = field(default_factory=dict)
    """What copies may have told it, its own of earlier terms among them."""

    def begin(self, term: int) -> None:
        """Lead anew, on top of what was accepted and perhaps of what copies know."""
        self.term = term
        for number, cell in self.written.items():
            self._add(number, cell)
        self.written = {}

    def before(self, number: int, language: str) -> tuple[_Cell, ...]:
        """The cells of a language before this one that have ended."""
        numbers = sorted(at for at in {*self.perhaps, *self.written} if at < number)
        cells = [self._as_known(at) for at in numbers]
        return tuple(
            cell
            for cell in cells
            if cell.language == language and (cell.may_count or cell.may_be_gone)
        )

    def _as_known(self, number: int) -> _Cell:
        """Of one that stands there without an end, a copy may have told how it ended."""
        written, perhaps = self.written.get(number), self.perhaps.get(number)
        if written is None:
            return self.perhaps[number]
        if perhaps is None or not written.is_open or not written.codes <= perhaps.codes:
            return written
        return replace(perhaps, codes=written.codes)

    def write(self, number: int, language: str, code: str) -> None:
        known = self._known(number)
        if known is None or code not in known.codes:
            known = _Cell(language, frozenset())  # another one, of which nothing is known yet
        self.written[number] = replace(known, codes=frozenset({code}))

    def end(self, number: int, code: str, *, is_session_alive: bool) -> None:
        """A worker says so, perhaps in answer to what was asked in the term before."""
        for cells in (self.written, self.perhaps):
            cell = cells.get(number)
            if cell is not None and code in cell.codes:
                cells[number] = cell.ended(is_session_alive=is_session_alive)

    def stands(self, event: CellEvent) -> None:
        """It is an entry of it."""
        if isinstance(event, CellStarted):
            self.write(event.cell, event.language, event.code)
        elif cell := self._known(event.cell):
            cell = replace(cell, may_count=False, may_be_gone=False, is_open=False)
            if isinstance(event, CellFinished):
                cell = cell.ended(is_session_alive=event.is_session_alive)
            self.written[event.cell] = cell

    def may_stand(self, event: CellEvent) -> None:
        """It is an entry of a copy."""
        if isinstance(event, CellStarted):
            self._add(event.cell, _Cell(event.language, frozenset({event.code})))
            return
        known = self.perhaps.get(event.cell) or self.written.get(event.cell)
        if known is not None and isinstance(event, CellFinished):
            self._add(event.cell, known.ended(is_session_alive=event.is_session_alive))

    def _known(self, number: int) -> _Cell | None:
        return self.written.get(number) or self.perhaps.get(number)

    def _add(self, number: int, cell: _Cell) -> None:
        known = self.perhaps.get(number)
        self.perhaps[number] = cell if known is None else known.or_else(cell)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A cell that somebody has asked for, and what his journal had before it then."""

    book: Book
    asked: CellAsked
    before: tuple[_Cell, ...]

    def fits(self, ran: tuple[str, ...]) -> bool:
        return _is_run_of(ran, self.before)


def _is_run_of(ran: tuple[str, ...], cells: tuple[_Cell, ...]) -> bool:
    """Whether these have run and no others; one that may have died may be left out."""
    if not cells:
        return not ran
    *earlier, last = cells
    if last.may_count and ran and ran[-1] in last.codes and _is_run_of(ran[:-1], tuple(earlier)):
        return True
    return last.may_be_gone and _is_run_of(ran, tuple(earlier))


class Sessions(NoChecker):
    """`session_is_whole`: a cell runs where all before it in its language have, and no others.

    All that its asker's journal has, whatever was written elsewhere under the same numbers; but for
    those that died with their session, whose task was told so.
    """

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._submitters = Submitters(witness)
        self._journals: dict[Book, _Journal] = {}
        self._asked: dict[Hashable, _Asked] = {}
        """Cells that were not answered yet."""
        self._due: dict[tuple[int, str, str], dict[Hashable, _Asked]] = {}
        """By worker, language and code: those that have not begun."""
        self._copies: dict[Hashable, Book] = {}
        """Whoever asks for a copy, of which task."""

    def began(self, number: int) -> None:
        """A new process remembers what is on its disk, at the most."""
        for book, journal in self._journals.items():
            if book[0] == number:
                journal.begin(journal.term)
        for key in [key for key in self._due if key[0] == number]:
            del self._due[key]

    def said(self, said: Said) -> None:
        message = said.message
        match message:
            case CellAsked(keeps_session=True) if said.by_asker and said.speaker >= 0:
                self._ask(said, message)
            case CopyAsked():
                submitter = self.witness.number_of(message.submitter)
                self._copies[said.request] = (said.speaker, submitter, message.task)
            case wire.EntryOffered(entry=entry):
                journal = self._journal(self._book(said.speaker, said, message.task))
                if entry.term == journal.term:  # else it was said before, or by one that jumbles
                    for event in _cell_events([entry]):
                        journal.stands(event)
            case _:
                if said.is_last and not said.by_asker and said.request in self._asked:
                    self._no_longer_due(said.speaker, said.request)

    def _ask(self, said: Said, asked: CellAsked) -> None:
        book = self._book(said.speaker, said, asked.task)
        journal = self._journal(book)
        if asked.term > journal.term:
            journal.begin(asked.term)
        before = journal.before(asked.cell, asked.language)
        self._asked[said.request] = _Asked(book, asked, before)
        if asked.term == journal.term:
            journal.write(asked.cell, asked.language, asked.code)

    def heard(self, said: Said) -> None:
        message = said.message
        match message:
            case CellAsked() if asked := self._asked.get(said.request):
                key = (said.hearer, message.language, message.code)
                self._due.setdefault(key, {})[said.request] = asked
            case wire.Grant():
                journal = self._journal(self._book(said.hearer, said, message.task))
                if message.term > journal.term:
                    journal.begin(message.term)
            case wire.Prefix(entries=entries):
                journal = self._journal(self._book(said.hearer, said, message.task))
                for event in _cell_events(entries):
                    journal.stands(event)
            case CopyOffered(submitter=submitter, entries=entries):
                whose = self.witness.number_of(submitter)
                self._hear_copy((said.hearer, whose, message.task), entries)
            case CopyFound(entries=entries) if book := self._copies.get(said.request):
                self._hear_copy(book, entries)
            case _:
                self._answered(said)

    def _hear_copy(self, book: Book, entries: Iterable[wire.Entry]) -> None:
        journal = self._journal(book)
        for event in _cell_events(entries):
            journal.may_stand(event)

    def _answered(self, said: Said) -> None:
        if not said.is_last or said.by_asker:
            return
        done, asked = said.message, self._asked.pop(said.request, None)
        if asked is not None and isinstance(done, CellDone):
            self._journal(asked.book).end(
                asked.asked.cell, asked.asked.code, is_session_alive=done.is_session_alive
            )

    def _no_longer_due(self, worker: int, request: Hashable) -> None:
        asked = self._asked[request].asked
        self._due.get((worker, asked.language, asked.code), {}).pop(request, None)

    def _book(self, number: int, said: Said, task: TaskId) -> Book:
        return number, self._submitters.of(said), task

    def _journal(self, book: Book) -> _Journal:
        return self._journals.setdefault(book, _Journal())

    def began_cell(self, number: int, code: str, state: ScriptedState) -> None:
        """A `places.OnCell` of each node."""
        due = self._due.get((number, state.language, code), {})
        if not due:
            return  # a stranger's, or a program that is run alone
        fitting = [request for request, asked in due.items() if asked.fits(state.codes)]
        latest = next(reversed(due.values()))
        wanted = [" or ".join(map(repr, sorted(cell.codes))) for cell in latest.before]
        self.witness.check(
            "session_is_whole",
            holds=bool(fitting),
            words=f"node {number} runs cell {latest.asked.cell} of {latest.asked.task} after "
            f"{list(state.codes)}, not [{', '.join(wanted)}]",
        )
        for request in fitting:  # it has begun; who asks for the same joins it
            del due[request]


def _cell_events(entries: Iterable[wire.Entry]) -> Iterator[CellEvent]:
    for entry in entries:
        event = _event(entry.body) if b"journal/cell-" in entry.body[:24] else None
        if isinstance(event, CellEvent):
            yield event


@lru_cache(maxsize=BODIES_KEPT)
def _event(body: bytes) -> Message | None:
    try:
        return codec.decode(body)
    except RemoteProtocolError:
        return None
