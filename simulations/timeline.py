"""What a story looked like over time: who was up, who was believed gone, who led, who worked.

A checker that checks nothing and remembers; `pages.py` draws it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from kowalski.mesh.watching import Recorded
from kowalski.node.core import task_ledger
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.detached import LogOffered
from simulations.checkers.journals import OVER
from simulations.witness import NoChecker, Said, Witness
from simulations.world import World


@dataclass(slots=True)
class Span:
    """From when to when something was so; `until_s` is -1 as long as it still is."""

    what: str
    from_s: float
    until_s: float = -1.0


@dataclass(slots=True)
class TaskLine:
    """One task: `terms` are named by the number of their coordinator."""

    submitter: int
    asked_s: float
    terms: list[Span] = field(default_factory=list)
    entries_s: list[float] = field(default_factory=list)
    end: str = ""
    ended_s: float = -1.0


@dataclass(slots=True)
class Timeline:
    up: dict[int, list[Span]] = field(default_factory=lambda: defaultdict(list))
    missed: dict[int, dict[int, list[Span]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    """By the number of the node that is missed, then of the one that misses it."""
    load: dict[int, list[tuple[float, int, int]]] = field(default_factory=lambda: defaultdict(list))
    """By node: when, how many cells and how many model calls it was at."""
    tasks: dict[str, TaskLine] = field(default_factory=dict)
    began_s: float = 0.0
    """When the story began; before that its nodes met."""
    healed_s: float = -1.0
    lasted_s: float = 0.0


def _begin(spans: list[Span], what: str, now: float) -> None:
    if not spans or spans[-1].until_s >= 0 or spans[-1].what != what:
        _end(spans, now)
        spans.append(Span(what, now))


def _end(spans: list[Span], now: float) -> None:
    if spans and spans[-1].until_s < 0:
        spans[-1].until_s = now


class Historian(NoChecker):
    """Fills a timeline. `look` is to be called about once a second."""

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self.timeline = Timeline()

    def began(self, number: int) -> None:
        _begin(self.timeline.up[number], "up", self.witness.now)

    def ended(self, number: int) -> None:
        _end(self.timeline.up[number], self.witness.now)
        for missing in self.timeline.missed.values():
            _end(missing.get(number, []), self.witness.now)

    def stepped(
        self, number: int, driver: Recorded, event: object, effects: tuple[object, ...]
    ) -> None:
        del driver, event
        for effect in effects:
            if isinstance(effect, task_ledger.GrantTerm):
                task, now = effect.task, self.witness.now
                leader = "nobody" if task.coordinator is None else str(self._number(task))
                _begin(self._line(number, task.id).terms, f"{leader} term {task.term}", now)

    def _number(self, task: task_ledger.Task) -> int:
        assert task.coordinator is not None
        return self.witness.number_of(task.coordinator)

    def said(self, said: Said) -> None:
        """Who leads a detached task says so to its other keepers, and what counts of it."""
        offered = said.message
        if isinstance(offered, LogOffered) and said.by_asker and said.speaker >= 0:
            line = self._line(self.witness.number_of(offered.submitter), offered.task)
            if not line.end:
                _begin(line.terms, f"{said.speaker} term {offered.term}", self.witness.now)
            new = offered.committed - len(line.entries_s)
            line.entries_s += [self.witness.now] * max(new, 0)

    def stored(self, number: int, method: str, arguments: tuple[object, ...]) -> None:
        task = arguments[0]
        if method == "detached.take" and isinstance(task, tuple):
            self._line(self.witness.number_of(task[0]), task[1])
        elif method == "detached.end" and isinstance(task, tuple):
            line = self._line(number, task[1])
            if not line.end:
                line.end, line.ended_s = "over", self.witness.now
                _end(line.terms, line.ended_s)
        if not isinstance(task, task_ledger.Task):
            return
        line, now = self._line(number, task.id), self.witness.now
        if len(line.entries_s) < task.entries:
            line.entries_s.append(now)
        if task.state in OVER and not line.end:
            line.end, line.ended_s = task.state, now
            _end(line.terms, now)

    def _line(self, number: int, task: TaskId) -> TaskLine:
        return self.timeline.tasks.setdefault(str(task), TaskLine(number, self.witness.now))

    def look(self, world: World) -> None:
        now = self.witness.now
        for place in world.places:
            if place.node is None:
                continue
            facts = world.as_node(place.number, lambda node: node.mesh.facts())
            for one in facts:
                about = self.witness.number_of(one.peer)
                if one.is_self and one.hot is not None:
                    hot = one.hot
                    line = self.timeline.load[place.number]
                    at = (now, hot.repl.running, hot.inference.running)
                    if not line or line[-1][1:] != at[1:]:
                        line.append(at)
                elif about >= 0 and not one.is_self:
                    missed = self.timeline.missed[about]
                    if one.is_routable:
                        _end(missed.get(place.number, []), now)
                    else:
                        _begin(missed[place.number], str(one.state), now)

    def close(self, *, began_s: float, healed_s: float) -> Timeline:
        timeline, now = self.timeline, self.witness.now
        timeline.began_s, timeline.healed_s = began_s, healed_s
        timeline.lasted_s = now
        for spans in timeline.up.values():
            _end(spans, now)
        for missing in timeline.missed.values():
            for spans in missing.values():
                _end(spans, now)
        for line in timeline.tasks.values():
            _end(line.terms, now)
        return timeline
