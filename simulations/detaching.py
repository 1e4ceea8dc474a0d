"""Tasks of a story that are handed over for good, to three keepers: how, and what comes of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Iterator
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TypeVar

import trio

from kowalski.node.core.fences import TaskKey
from kowalski.node.core.task_ledger import Task
from kowalski.node.services.detached_task import DetachedTask
from kowalski.node.storage import StorageError
from kowalski.node.verbs import Node
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.detached import GROUP_SIZE
from kowalski.protocol.messages.task import TaskSpec
from simulations.checkers.ends import Taken, models_down, was_alone, why_wrong
from simulations.checkers.keepers import Group, Keepers
from simulations.plan import Ask, Plan
from simulations.reports import Report
from simulations.world import World

T = TypeVar("T")
NOES = (PeerUnreachableError, RemoteProtocolError, RequestFailedError, RequestRefusedError)


@dataclass(slots=True)
class Detached:
    """A task that a node was to hand over. `is_taken`: it said that two of three keep it."""

    ask: Ask
    key: TaskKey
    number: int
    at_s: float
    is_taken: bool = False
    is_cancelled: bool = False
    ended_s: float = inf
    end: Task | None = None
    """As the first keeper has told it that knew."""


class Handovers:
    """All of one story."""

    def __init__(self, world: World, keepers: Keepers) -> None:
        self.tasks: dict[str, Detached] = {}
        self._world = world
        self._keepers = keepers

    # --- what people do -------------------------------------------------------------------------

    async def submit(self, ask: Ask, number: int, spec: TaskSpec) -> bool | None:
        """Hand one over; whether it may have been. None: there are not three to keep it."""
        witness = self._world.witness
        key = (self._world.peer(number), TaskId(ask.task))
        known = self.tasks.setdefault(ask.task, Detached(ask, key, number, trio.current_time()))
        try:
            group = await self.as_user(number, lambda node: node.tasks.detach(key[1], spec))
        except StorageError as full:
            witness.note(f"{ask.task}: not taken by node {number}: {full}")
            return not self._world.is_up(number)  # it may have died with it on its disk
        except (RequestRefusedError, PeerUnreachableError) as no:
            witness.note(f"{ask.task}: not handed over by node {number} yet: {no}")
            return True
        if len(group) < GROUP_SIZE:
            return None
        known.is_taken = True
        names = ", ".join(str(witness.number_of(peer)) for peer in group)
        witness.note(f"{ask.task}: {ask.mode} of node {number}, kept by {names}")
        return True

    async def think_again(self, ask: Ask, known: Detached, spec: TaskSpec) -> None:
        """The same again, or with another prompt; or it shall end."""
        name, number, witness = known.key[1], known.number, self._world.witness
        if ask.kind == "cancel":
            known.is_cancelled = True
            try:
                await self.as_user(number, partial(_cancel, name=name))
            except (*NOES, StorageError) as no:
                witness.note(f"{name}: not cancelled yet: {no}")
            return
        try:
            await self.as_user(number, lambda node: node.tasks.detach(name, spec))
        except (RequestRefusedError, PeerUnreachableError, StorageError) as no:
            is_conflict = isinstance(no, RequestRefusedError) and no.reason == "conflict"
            holds = ask.kind == "conflict" or not is_conflict
        else:
            holds = ask.kind == "again"
        witness.check("id_idempotent", holds=holds, words=f"{name}: {ask.kind} is another task")

    async def as_user(self, number: int, do: Callable[[Node], Awaitable[T]]) -> T:
        """Have a node do something, by its own clock, as long as it lives.

        Raises:
            PeerUnreachableError: it has died meanwhile.
        """
        place, node = self._world.places[number], self._world[number]
        came: list[T] = []
        failed: list[Exception] = []

        async def run() -> None:
            try:
                came.append(await do(node))
            except (*NOES, StorageError) as no:
                failed.append(no)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            place.context.run(nursery.start_soon, run)
            await place.ended.wait()
            nursery.cancel_scope.cancel()
        if came:
            return came[0]
        raise failed[0] if failed else PeerUnreachableError(f"node {number} has died")

    # --- how they stand -------------------------------------------------------------------------

    def look(self) -> None:
        """At what every keeper holds for what counts, and for the end."""
        for known in self.tasks.values():
            group = self._keepers.groups.get(known.key)
            if group is None:
                continue
            for number, kept in self._kept(known.key, group):
                task = kept.find(known.key[1])
                self._keepers.counts(group, number, task.digests)
                if task.is_over:
                    self._ended(known, number, task)

    def _ended(self, known: Detached, number: int, task: Task) -> None:
        if known.end is None:
            known.end, known.ended_s = task, trio.current_time()
            self._world.witness.note(f"{task.id}: {task.state}, says node {number}")
        first = known.end
        self._world.witness.check(
            "keepers_agree",
            holds=(task.state, task.answer) == (first.state, first.answer),
            words=f"{task.id}: {task.state} {task.answer!r:.200} says node {number}, "
            f"others {first.state} {first.answer!r:.200}",
        )

    def _kept(self, key: TaskKey, group: Group) -> Iterator[tuple[int, DetachedTask]]:
        for number in filter(self._world.is_up, group.members):
            for one in self._world[number].submitting.detached.held(key[1], key[0]):
                yield number, one

    def unfinished(self, lost: set[int]) -> list[str]:
        """What was taken and has not ended, in words: at every keeper that should know of it."""
        self.look()
        found: list[str] = []
        for known in self.tasks.values():
            group = self._keepers.groups.get(known.key)
            if group is None or not known.is_taken:
                continue
            over = {n for n, one in self._kept(known.key, group) if one.member.is_over}
            found += [
                f"{known.ask.task} is not over at node {number}, one of its keepers"
                for number in group.members
                if number not in over | lost | group.excused
            ]
        return found

    def ended(self) -> list[Detached]:
        """Those that were taken, and have come to an end."""
        return [one for one in self.tasks.values() if one.is_taken and one.end is not None]

    def check_ends(self, plan: Plan, fired: Container[str], *, since_s: float) -> None:
        """Each of those that were taken has ended as it should; the story began at `since_s`."""
        for known in self.ended():
            assert known.end is not None
            life = known.at_s - since_s, known.ended_s - since_s
            members = self._keepers.groups[known.key].members
            wrong = why_wrong(
                known.ask,
                known.end,
                plan.scenario,
                fired=fired,
                is_cancelled=known.is_cancelled,
                models_down=models_down(plan.faults, *life),
                was_alone=any(
                    was_alone(plan.faults, number, *life, nodes=plan.scenario.nodes)
                    for number in members
                ),
            )
            self._world.witness.check("answers_are_right", holds=not wrong, words=wrong)

    def count(self, report: Report) -> None:
        """What came of them, in the report of the story."""
        for known in self.ended():
            assert known.end is not None
            report.ends[known.end.state] += 1
            report.terms += known.end.term
            report.entries += known.end.entries
            report.task_s.append(known.ended_s - known.at_s)
            if known.end.state == "answered":
                report.cells_visible += len(known.ask.cells)

    def whole(self) -> list[Ask]:
        """What was asked of those that are answered with all that was wanted."""
        taken = (
            (one.ask, Taken(one.ask, one.number, one.at_s, last_seen=one.end))
            for one in self.ended()
            if not one.is_cancelled
        )
        return [ask for ask, one in taken if one.is_complete]


async def _cancel(node: Node, name: TaskId) -> None:
    place = await node.tasks.find(name)
    await node.tasks.cancel(place, "changed my mind")
