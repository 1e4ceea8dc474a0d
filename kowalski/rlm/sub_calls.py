"""What a journal knows of sub-calls: for cells that run again, and so that nothing is asked twice.

A cell that runs again asks what it asked before, but from several threads it may ask in another
order; so an answer is found by its question within the cell, the k-th time the k-th answer. An
identical question anywhere in the task is found by the question alone.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from kowalski.protocol.ids import ContentHash, content_hash
from kowalski.protocol.messages.calls import CallName
from kowalski.protocol.messages.journal import (
    CellFinished,
    ChildHappened,
    SessionEvent,
    SubCallAnswered,
    SubCallsAnswered,
)
from kowalski.protocol.messages.repl import SubCall, SubCallResult
from kowalski.rlm import call_names
from kowalski.rlm.budget import child_event

ASKING_MODELS = frozenset({"llm", "rlm"})


class Place(NamedTuple):
    cell: int
    ordinal: int


def question_of(call: SubCall) -> ContentHash:
    """Equal for two sub-calls that ask the same."""
    return content_hash(f"{call.kind}\0{call.model or ''}\0{call.prompt}".encode())


@dataclass(slots=True)
class _Child:
    question: ContentHash | None
    events: list[SessionEvent] = field(default_factory=list)


@dataclass(slots=True)
class SubCallBook:
    """Fed with a task's journal, before and while it runs."""

    _of_cells: dict[int, list[SubCallAnswered]] = field(default_factory=dict)
    _first: dict[ContentHash, SubCallAnswered] = field(default_factory=dict)
    """Of each question that got a text."""
    _children: dict[Place, _Child] = field(default_factory=dict)
    """That have not ended."""

    def hear(self, event: SessionEvent) -> None:
        match event:
            case SubCallAnswered():
                self._of_cells.setdefault(event.cell, []).append(event)
                self._children.pop(Place(event.cell, event.ordinal), None)
                if event.text is not None and event.kind in ASKING_MODELS:
                    self._first.setdefault(event.prompt, event)
            case SubCallsAnswered(answers=answers):
                for answered in answers:
                    self.hear(answered)
            case ChildHappened():
                inner = child_event(event)
                if inner is not None:
                    place = Place(event.cell, event.ordinal)
                    child = self._children.setdefault(place, _Child(event.question))
                    child.events.append(inner)
            case CellFinished():
                # Whatever it still asked when it ended was given up.
                for place in [place for place in self._children if place.cell == event.cell]:
                    del self._children[place]
            case _:
                pass

    def repeated(self, question: ContentHash) -> SubCallResult | None:
        """What was answered to the same question. What failed is asked again."""
        answered = self._first.get(question)
        return None if answered is None else self.result(answered)

    def result(self, answered: SubCallAnswered) -> SubCallResult:
        text = answered.text
        if answered.is_repeated and text is None:
            first = self._first.get(answered.prompt)
            text = first.text if first is not None else None
        if text is None and answered.error is None:
            return SubCallResult(error="the answer it repeats is not in the journal", code="lost")
        return SubCallResult(text=text, error=answered.error, code=answered.code)

    def child(self, place: Place) -> tuple[SessionEvent, ...]:
        """What has happened in a child session that has not ended."""
        child = self._children.get(place)
        return tuple(child.events) if child is not None else ()

    def run_of(self, cell: int) -> CellRun:
        """For a cell that begins to run, for the first time or again."""
        return CellRun(self, cell, list(self._of_cells.get(cell, ())), dict(self._children))


class CellRun:
    """One run of a cell: what it asks, held against what the cell asked in earlier runs."""

    def __init__(
        self,
        book: SubCallBook,
        cell: int,
        answered: list[SubCallAnswered],
        children: dict[Place, _Child],
    ) -> None:
        self._book = book
        self._cell = cell
        self._known: dict[ContentHash, deque[SubCallAnswered]] = {}
        for one in sorted(answered, key=lambda one: one.ordinal):
            self._known.setdefault(one.prompt, deque()).append(one)
        self._orphans: dict[ContentHash | None, deque[Place]] = {}
        ordinals = [one.ordinal for one in answered]
        for place, child in sorted(children.items()):
            if place.cell == cell:
                self._orphans.setdefault(child.question, deque()).append(place)
                ordinals.append(place.ordinal)
        self._next = max(ordinals, default=-1) + 1
        self._times: Counter[ContentHash] = Counter()

    def name(self, question: ContentHash) -> CallName:
        """Of the next time that it asks this: the same in each run, whatever comes in between."""
        self._times[question] += 1
        return call_names.of_sub_call(self._cell, question, self._times[question] - 1)

    def replayed(self, question: ContentHash) -> SubCallResult | None:
        """What an earlier run was answered; None if it did not come so far."""
        known = self._known.get(question)
        return self._book.result(known.popleft()) if known else None

    def place(self, question: ContentHash) -> Place:
        """Where the answer is to be written: a child that was begun goes on in its place."""
        orphans = self._orphans.get(question)
        if orphans:
            return orphans.popleft()
        self._next += 1
        return Place(self._cell, self._next - 1)
