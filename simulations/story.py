"""Tells a plan in a world of real nodes (tier A): people ask, things break, all heals, all ends.

First safety: whatever breaks, nothing wrong becomes visible. Then everything heals, and liveness:
every task ends, everybody knows everybody, and nothing is left over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

import trio

from kowalski.mesh.loopback_wires import Weather
from kowalski.node.core.task_ledger import Task
from kowalski.node.repl.scripted_sessions import Script
from kowalski.node.storage import StorageError
from kowalski.protocol.errors import PeerUnreachableError, RequestRefusedError
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.task import TaskSpec
from kowalski.rlm.journal import event_of
from simulations.checkers.bearings import look_at_bearings
from simulations.checkers.breakers import breakers
from simulations.checkers.closers import Closers
from simulations.checkers.ends import Taken, models_down, was_alone, why_not_conserved, why_wrong
from simulations.checkers.journals import Journals, untrue_cells
from simulations.checkers.keepers import Keepers
from simulations.checkers.members import Members
from simulations.checkers.patience import Silences
from simulations.checkers.placements import Able, Deadlines, Probes, RetryBudgets
from simulations.checkers.sessions import Sessions
from simulations.checkers.stillness import Stillness
from simulations.checkers.terms import Fences, Leases, Terms
from simulations.checkers.views import Beliefs, disagreements, ghosts
from simulations.checkers.work import Executions, check_calls, is_same, leftovers
from simulations.detaching import Handovers
from simulations.determinism import decided_by
from simulations.injection import Injection
from simulations.logs import told_to
from simulations.menu import Fault
from simulations.places import SESSION_IDLE_S, Model, improvising, parts_of
from simulations.plan import Ask, Plan
from simulations.reports import Report
from simulations.timeline import Historian
from simulations.toy_cells import toy_script
from simulations.virtual_time import JumpingClock
from simulations.wires import Gossiping
from simulations.witness import Witness
from simulations.world import World, open_world, spec_of

LOOK_EVERY_S = 0.25
QUIET_S = 5.0
"""After the last task, until what was kept for a moment must be gone."""
CONVERGE_S = 60.0
LEFT_OVER_S = SESSION_IDLE_S + 40.0
"""Sessions of whose end nobody has told their host are closed when they were idle for so long."""
CELL_TIMEOUT_S = 600.0
"""Longer than any slow worker takes: what is slow shall end right."""
STEPS_SHOWN = 30
"""Of each machine, when a promise was broken."""


@dataclass(frozen=True, slots=True)
class Nature:
    """What is not in a plan: how scripts and models behave. Tests put worse ones in."""

    script: Script = toy_script
    tells: Model = improvising


def tell(
    plan: Plan,
    *,
    nature: Nature | None = None,
    keeps_trace: bool = False,
    keeps_timeline: bool = False,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> Report:
    """Tell the story of a plan in virtual time. It is the same story every time."""
    story = _Story(plan, nature or Nature(), keeps_trace=keeps_trace)
    if keeps_timeline:
        story.historian = Historian(story.witness)
    try:
        with decided_by(plan.seed), told_to(story.witness):
            trio.run(story.tell, clock=JumpingClock(), instruments=instruments)
    except BaseExceptionGroup:
        if not story.witness.violations:
            raise
    story.sum_up()
    return story.report


class _Story:
    def __init__(self, plan: Plan, nature: Nature, *, keeps_trace: bool) -> None:
        self.report = Report(plan)
        self.witness = Witness()
        self._plan = plan
        self._parts = parts_of(plan.scenario.devices, tells=nature.tells, script=nature.script)
        self._taken: dict[str, Taken] = {}
        self._given: dict[str, dict[str, object]] = {}
        """What came with tasks, by their names."""
        self._perhaps: set[tuple[int, str]] = set()
        """Tasks that a node may have on its disk, and has not said so."""
        self.historian: Historian | None = None
        self._began_s, self._healed_s = 0.0, -1.0
        self._keeps_trace = keeps_trace
        self._world: World
        self._injection: Injection
        self._beliefs: Beliefs
        self._handovers: Handovers
        self._keepers: Keepers
        self._journals: Journals
        self._executions: Executions
        self._sessions: Sessions
        self._members: Members
        self._silences: Silences
        self._probes: Probes

    async def tell(self) -> None:
        network, witness = self._plan.scenario.network, self.witness
        if self._keeps_trace:
            witness.trace = self.report.trace = []
        self._engage(witness)
        weather = Weather(
            latency_s=network.latency_ms / 1000,
            jitter_s=network.jitter_ms / 1000,
            gossip_loss=network.gossip_loss,
        )
        async with open_world(
            self._parts,
            seed=self._plan.seed,
            weather=weather,
            witness=witness,
            clocks=[(clock.rate, clock.offset_s) for clock in self._plan.clocks],
            grain_s=network.grain_ms / 1000,
        ) as self._world:
            await self._tell_in(self._world)

    def _engage(self, witness: Witness) -> None:
        """Have all checkers hear what is seen."""
        self._keepers = Keepers(witness)
        self._journals = Journals(witness)
        self._executions = Executions(witness, self._plan.asks)
        self._sessions = Sessions(witness)
        self._members = Members(witness)
        self._silences = Silences(witness)
        self._probes = Probes(witness)
        witness.engage(
            Stillness(witness),
            Terms(witness),
            Fences(witness),
            Leases(witness),
            self._keepers,
            Closers(witness),
            self._journals,
            self._executions,
            self._sessions,
            self._members,
            self._silences,
            Able(witness, self._parts),
            Deadlines(witness),
            RetryBudgets(witness),
            self._probes,
            *breakers(witness, self._plan.faults, self._parts),
        )
        if self.historian is not None:
            witness.engage(self.historian)

    async def _tell_in(self, world: World) -> None:
        scenario, network, witness = self._plan.scenario, self._plan.scenario.network, self.witness
        storm = world.wires.storm
        storm.packet_loss = network.packet_loss
        replayed = Gossiping(replayed=network.gossip_replayed, replayed_s=30.0)
        storm.gossip = storm.usual_gossip = replayed
        if network.mbit_per_s is not None:
            storm.bytes_per_s = network.mbit_per_s * 125_000
        for place in world.places:
            for watching in (self._executions, self._sessions):
                place.on_cell.append(partial(watching.began_cell, place.number))
        self._injection = Injection(world)
        self._probes.under_way = world.probes
        self._beliefs = Beliefs(witness)
        self._handovers = Handovers(world, self._keepers)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop_when_violated, nursery.cancel_scope)
            nursery.start_soon(self._look)
            await self._safety(scenario.seconds)
            witness.note("healed")
            self._healed_s = witness.now
            await self._liveness(scenario.settle_s)
            nursery.cancel_scope.cancel()
        self._count()

    async def _stop_when_violated(self, scope: trio.CancelScope) -> None:
        await self.witness.is_violated.wait()
        scope.cancel()

    # --- safety ---------------------------------------------------------------------------------

    async def _safety(self, lasts_s: float) -> None:
        """The story's events, each in its time. Those that last longer are ended.

        One begins after the other, so that what is still to come changes nothing before it does:
        else no story could be made shorter.
        """
        began_at = self._began_s = trio.current_time()
        planned: list[Fault | Ask] = [*self._plan.faults, *self._plan.asks]
        events = sorted((one for one in planned if one.at_s < lasts_s), key=lambda one: one.at_s)
        async with trio.open_nursery() as asking:
            async with trio.open_nursery() as nursery:
                for event in events:
                    await trio.sleep_until(began_at + event.at_s)
                    if isinstance(event, Fault):
                        nursery.start_soon(self._injection.inject, event)
                    else:
                        asking.start_soon(self._do, event)
                await trio.sleep_until(began_at + lasts_s)
                nursery.cancel_scope.cancel()
            await self._heal()
            asking.cancel_scope.cancel()  # not before: who stands still hears of nothing

    async def _heal(self) -> None:
        for place in self._world.places:
            if place.node is None and place.number not in self._injection.lost:
                await place.ended.wait()
                await self._world.start(place.number)
        for place in self._world.places:
            await self._world.until_awake(place.number)  # whoever stood still has healed then

    async def _do(self, ask: Ask) -> None:
        if ask.kind == "submit":
            await self._submit(ask)
        elif known := self._handovers.tasks.get(ask.task):
            if known.is_taken and await self._awake(known.number):
                await self._handovers.think_again(ask, known, self._spec(ask))
        elif taken := self._taken.get(ask.task):
            await self._think_again(ask, taken)

    async def _awake(self, number: int) -> bool:
        """Wait until a node can hear its user; whether it is up then."""
        await self._world.until_awake(number)
        return self._world.is_up(number)

    async def _submit(self, ask: Ask) -> None:
        count = len(self._world.places)
        for step in range(count):
            number = (ask.node + step) % count
            if not await self._awake(number) or not await self._is_given(ask, number):
                continue
            if ask.is_detached:
                is_handed_over = await self._handovers.submit(ask, number, self._spec(ask))
                if is_handed_over:
                    return
                del self._handovers.tasks[ask.task]
                if is_handed_over is False or not await self._awake(number):
                    continue
            if self._hand_over(ask, number):
                return

    async def _is_given(self, ask: Ask, number: int) -> bool:
        """Put the file that comes with it where it is asked; whether that is done."""
        if ask.given_bytes:
            data = ask.task.encode().ljust(ask.given_bytes, b".")
            try:
                kept = await self._handovers.as_user(number, lambda node: node.store.put(data))
            except (RequestRefusedError, PeerUnreachableError) as no:
                self.witness.note(f"{ask.task}: no room for its file at node {number}: {no}")
                return False
            self._given[ask.task] = {"name": "given", "content": kept.model_dump()}
        return await self._awake(number)

    def _spec(self, ask: Ask) -> TaskSpec:
        given = self._given.get(ask.task)
        inputs = () if given is None else (given,)
        more = {"cell_timeout_s": CELL_TIMEOUT_S, "inputs": inputs}
        return spec_of(ask.prompt, mode=ask.mode, timeout_s=ask.timeout_s, **more)

    def _hand_over(self, ask: Ask, number: int) -> bool:
        try:
            self._say(ask, number)
        except (StorageError, RequestRefusedError) as no:
            self.witness.note(f"{ask.task}: not taken by node {number}: {no}")
            # It may have died with the task on its disk; then it is its own again, or nobody's.
            self._perhaps.add((number, ask.task))
            return not self._world.is_up(number)
        self._taken[ask.task] = Taken(ask, number, trio.current_time())
        self.witness.note(f"{ask.task}: {ask.mode} at node {number}")
        return True

    def _say(self, ask: Ask, number: int) -> None:
        task, spec = TaskId(ask.task), self._spec(ask)
        self._world.as_node(number, lambda node: node.submitter.submit(task, spec))

    async def _think_again(self, ask: Ask, taken: Taken) -> None:
        world, check = self._world, self.witness.check
        if not await self._awake(taken.number):
            return
        task = TaskId(ask.task)
        try:
            if ask.kind == "cancel":
                taken.is_cancelled = True  # also if its node dies as it writes that down
                world.as_node(
                    taken.number, lambda node: node.submitter.cancel(task, "changed my mind")
                )
                self.witness.note(f"{ask.task}: cancelled")
                return
            before = world[taken.number].submitter.find(task)
            self._say(ask, taken.number)
            after = world[taken.number].submitter.find(task)
        except StorageError:
            return
        except RequestRefusedError as no:
            check(
                "id_idempotent",
                holds=ask.kind == "conflict" and no.reason == "conflict",
                words=f"{ask.task}: {ask.kind} was refused: {no}",
            )
            return
        check(
            "id_idempotent",
            holds=ask.kind == "again" and is_same(before, after),
            words=f"{ask.task}: {ask.kind} made {after} of {before}",
        )

    # --- looking --------------------------------------------------------------------------------

    async def _look(self) -> None:
        """What nodes show of their tasks, again and again."""
        looks = 0
        while True:
            await trio.sleep(LOOK_EVERY_S)
            looks += 1
            if looks % 4 == 0:
                self._beliefs.look(self._world)
                if self._plan.scenario.is_spoofed:
                    look_at_bearings(self._world)
                if self.historian is not None:
                    self.historian.look(self._world)
            for taken in self._taken.values():
                if taken.ended_s == inf and self._world.is_up(taken.number):
                    self._show(taken)
            self._handovers.look()

    def _show(self, taken: Taken) -> Task | None:
        """The task, if its node is up, after a look at all that is visible of it."""
        node = self._world[taken.number]
        task_id = TaskId(taken.ask.task)
        try:
            task = node.submitter.find(task_id)
        except RequestRefusedError as no:
            self.witness.check("no_lost_ack", holds=False, words=f"{task_id}: {no}")
            return None
        self._silences.look(self._world.places[taken.number], task)
        if task is not taken.last_seen:
            taken.last_seen = task
            self._journals.look(task, node.submitter.entries(task_id))
            if task.is_over:
                taken.ended_s = min(taken.ended_s, trio.current_time())
        return task

    # --- liveness -------------------------------------------------------------------------------

    @property
    def _due(self) -> list[Taken]:
        """Tasks whose submitter is here, or will be."""
        lost = self._injection.lost
        return [taken for taken in self._taken.values() if taken.number not in lost]

    async def _liveness(self, settle_s: float) -> None:
        await self._wait("no_lost_ack", settle_s, self._unfinished)
        for taken in self._due:
            self._check_end(taken)
        self._handovers.check_ends(self._plan, self._injection.fired, since_s=self._began_s)
        self._check_conserved()
        await self._wait("views_converge", CONVERGE_S, lambda: disagreements(self._world))
        await self._wait("no_ghosts", CONVERGE_S, lambda: ghosts(self._world))
        await trio.sleep(QUIET_S)
        await self._wait(
            "nothing_is_left_over", LEFT_OVER_S, lambda: leftovers(self._world), every_s=5.0
        )
        is_quiet = not self._injection.fired
        whole = [one.ask for one in self._due if one.is_complete and not one.is_cancelled]
        whole += self._handovers.whole()
        self._executions.check_all(whole, is_quiet=is_quiet)
        if not self._plan.scenario.may_be_helpless:
            check_calls(self._world, whole, is_quiet=is_quiet)
        self._members.check_all(is_quiet=is_quiet)

    async def _wait(
        self,
        invariant: str,
        within_s: float,
        left: Callable[[], list[str]],
        *,
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        """Until nothing is left to say against it, or it is broken."""
        with trio.move_on_after(within_s):
            while left():  # noqa: ASYNC110 virtual time costs nothing
                await trio.sleep(every_s)
        words = left()
        self.witness.check(
            invariant,
            holds=not words,
            words=f"{within_s:g} s after everything had healed: {'; '.join(words[:5])}",
        )
        await trio.lowlevel.checkpoint()

    def _unfinished(self) -> list[str]:
        found = self._handovers.unfinished(self._injection.lost)
        for taken in self._due:
            if self._world.is_up(taken.number):
                task = self._show(taken)
                if task is not None and not task.is_over:
                    found.append(f"{task.id} is {task.state}, term {task.term}: {task.why_waiting}")
            else:
                found.append(f"node {taken.number} is down")
        return found

    def _check_conserved(self) -> None:
        """Each node has the tasks that it has taken in, and no others."""
        for number in filter(self._world.is_up, range(len(self._world.places))):
            wrong = why_not_conserved(
                there={str(task.id) for task in self._world[number].submitter.tasks},
                taken={name for name, one in self._taken.items() if one.number == number},
                perhaps={name for at, name in self._perhaps if at == number},
            )
            self.witness.check(
                "tasks_are_conserved", holds=not wrong, words=f"node {number} {wrong}"
            )

    def _check_end(self, taken: Taken) -> None:
        task = self._show(taken)
        if task is None or task.answer is None:
            return
        life = taken.at_s - self._began_s, taken.ended_s - self._began_s
        wrong = why_wrong(
            taken.ask,
            task,
            self._plan.scenario,
            fired=self._injection.fired,
            is_cancelled=taken.is_cancelled,
            models_down=models_down(self._plan.faults, *life),
            was_alone=was_alone(
                self._plan.faults, taken.number, *life, nodes=self._plan.scenario.nodes
            ),
        )
        self.witness.check("answers_are_right", holds=not wrong, words=wrong)
        if taken.ask.mode == "rlm":
            entries = self._world[taken.number].submitter.entries(task.id)
            untrue = untrue_cells(event_of(entry) for entry in entries)
            self.witness.check(
                "journal_is_true", holds=not untrue, words=f"{task.id}: {'; '.join(untrue)}"
            )

    # --- the report -----------------------------------------------------------------------------

    def _count(self) -> None:
        """What only an open world can tell."""
        report = self.report
        report.fired = dict(sorted(self._injection.fired.items()))
        report.lasted_s = self._world.wires.now()
        report.cells_begun = self._executions.begun.total()
        report.calls = len(self._world.calls)
        self._handovers.count(report)
        for taken in self._taken.values():
            if taken.number in self._injection.lost or not self._world.is_up(taken.number):
                report.ends["lost"] += 1
                continue
            task = self._world[taken.number].submitter.find(TaskId(taken.ask.task))
            report.ends[task.state] += 1
            report.terms += task.term
            report.entries += task.entries
            if taken.ended_s < inf:
                report.task_s.append(taken.ended_s - taken.at_s)
            if task.state == "answered":
                report.cells_visible += len(taken.ask.cells)

    def sum_up(self) -> None:
        """What the witness has seen."""
        report, witness = self.report, self.witness
        report.trace_hash = witness.trace_hash
        report.violation = witness.violations[0] if witness.violations else None
        report.evaluated = witness.evaluated
        report.messages = witness.messages
        report.stream_bytes, report.gossip_bytes = witness.stream_bytes, witness.gossip_bytes
        report.last = witness.last
        if self.historian is not None:
            report.timeline = self.historian.close(began_s=self._began_s, healed_s=self._healed_s)
        if report.violation is None:
            return  # printing takes longer than many a machine's whole life
        for number, recorders in sorted(witness.recorders.items()):
            for one in recorders:
                name = f"node {number} {one.machine.rpartition('.')[2]}"
                report.recorders[name] = [
                    f"{now:.4f} {event!r:.300} -> {effects!r:.500}"
                    for now, event, effects in list(one.recorder)[-STEPS_SHOWN:]
                ]
