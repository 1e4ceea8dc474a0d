"""How long a submitter waits for a coordinator of which it hears nothing."""

from __future__ import annotations

from math import inf

from kowalski.mesh.watching import Recorded
from kowalski.node.core import task_ledger
from kowalski.protocol.ids import TaskId
from simulations.places import Place
from simulations.witness import NoChecker, Witness

SILENCE_S = 4.0
BUSY_S = 8.0
"""What is promised (docs/decisions/0004), and not what the code under test says it is."""
SLACK_S = 1.0
"""From the end of its patience until a ledger that has much to do has done something about it."""


class Silences(NoChecker):
    """`silence_is_noticed`: a task whose coordinator says nothing is not left with it.

    What a ledger hears is looked at, not what it makes of it. A submitter that stands still, or
    cannot write down that it appoints another one, is excused.
    """

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._heard_s: dict[tuple[int, TaskId], float] = {}
        """Its own time, by submitter and task: the last word of the coordinator, or its term's
        first grant. The same term granted again is no sign of life.
        """
        self._terms: dict[tuple[int, TaskId], int] = {}
        self._excused_s: dict[int, float] = {}

    def began(self, number: int) -> None:
        """A new process has heard nothing yet."""
        for key in [key for key in self._heard_s if key[0] == number]:
            del self._heard_s[key]

    def stepped(
        self, number: int, driver: Recorded, event: object, effects: tuple[object, ...]
    ) -> None:
        del driver
        own_s = self.witness.own_time(number)
        match event:
            case task_ledger.CoordinatorHeard(task=task) | task_ledger.EntryHeard(task=task):
                self._heard_s[number, task] = own_s
            case task_ledger.CoordinatorDeclined(task=task):
                self._heard_s[number, task] = own_s + BUSY_S
            case _:
                pass
        for effect in effects:
            if isinstance(effect, task_ledger.GrantTerm):
                key = (number, effect.task.id)
                if self._terms.get(key, 0) < effect.task.term:
                    self._terms[key], self._heard_s[key] = effect.task.term, own_s

    def look(self, place: Place, task: task_ledger.Task) -> None:
        """At a task, as its submitter shows it."""
        number, own_s = place.number, self.witness.own_time(place.number)
        disk = place.disk
        is_hindered = disk.is_full or disk.slow_s or disk.errors
        if is_hindered or place.time.frozen_until >= self.witness.now:
            self._excused_s[number] = own_s
        heard_s = self._heard_s.get((number, task.id), inf)
        silent_s = own_s - max(heard_s, self._excused_s.get(number, -inf))
        self.witness.check(
            "silence_is_noticed",
            holds=task.state != "running" or silent_s <= SILENCE_S + SLACK_S,
            words=f"{task.id}: nothing of its coordinator for {silent_s:.2f} s in term {task.term}",
        )
