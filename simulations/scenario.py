"""One random story about a mesh: tasks come in, nodes die, links are cut, then everything heals.

What is checked is seen from outside: every task that a node took in reaches exactly one end, with
the answer that can be computed without the mesh; terms never fall, and what was visible stays.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import dataclass, field

import trio

from kowalski.mesh.loopback_transport import Weather
from kowalski.node.core.task_ledger import Task
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.task import Mode
from kowalski.rlm.journal import check_chain
from simulations.determinism import decided_by as seeded_scheduler
from simulations.virtual_time import JumpingClock
from simulations.world import Part, World, open_world

SETTLE_S = 90.0
"""Virtual time in which every task must end once the faults have ended."""

SUBMIT_EVERY_S = 3.0
FAULT_EVERY_S = 10.0
FAULT_S_MAX = 15.0
LOOK_EVERY_S = 0.1

ABLE = Part(models=("m",))
"""Can do everything, so that no task has an excuse."""


class ViolationError(Exception):
    """A promise was broken."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A task, the node that took it in, and what must stand in its answer."""

    task: TaskId
    number: int
    wanted: tuple[str, ...]


@dataclass(slots=True)
class Report:
    seed: int
    trace: list[str] = field(default_factory=list)
    tasks: int = 0
    terms: int = 0
    entries: int = 0
    cells_begun: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    @property
    def trace_hash(self) -> str:
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()[:16]

    def note(self, what: str) -> None:
        self.trace.append(f"{trio.current_time():.3f} {what}")


def run(*, nodes: int, seed: int, minutes: float, part: Part = ABLE) -> Report:
    """Tell the story of `seed`, in virtual time. Every node is such a `part`.

    Raises:
        ViolationError: a promise was broken.
    """
    report = Report(seed)
    story = _Story([part] * nodes, minutes * 60, report)
    try:
        with seeded_scheduler(seed):
            trio.run(story.tell, clock=JumpingClock())
    except BaseExceptionGroup as group:
        violations = group.subgroup(ViolationError)
        if violations is None:
            raise
        raise ViolationError(str(_first(violations))) from group
    return report


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


class _Story:
    def __init__(self, parts: list[Part], lasts_s: float, report: Report) -> None:
        self._parts = parts
        self._numbers = range(len(parts))
        self._lasts_s = lasts_s
        self._report = report
        self._random = random.Random(report.seed)
        self._asked: list[Asked] = []
        self._seen: dict[TaskId, Task] = {}
        self._world: World

    async def tell(self) -> None:
        weather = Weather(latency_s=0.002, jitter_s=0.01, gossip_loss=0.05)
        async with (
            open_world(self._parts, seed=self._report.seed, weather=weather) as self._world,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._look)
            async with trio.open_nursery() as faults:
                with trio.move_on_after(self._lasts_s):
                    async with trio.open_nursery() as life:
                        life.start_soon(self._submit_now_and_then)
                        life.start_soon(self._break_now_and_then, faults)
            self._report.note("healed")
            await self._wait_for_all()
            self._count()
            nursery.cancel_scope.cancel()

    @property
    def _up(self) -> list[int]:
        return [number for number in self._numbers if self._world.is_up(number)]

    # --- what is asked --------------------------------------------------------------------------

    async def _submit_now_and_then(self) -> None:
        while True:
            await trio.sleep(self._random.expovariate(1 / SUBMIT_EVERY_S))
            prompt, mode, wanted = self._question(len(self._asked))
            number = self._random.choice(self._up)
            task = self._world.submit(
                number, prompt, mode=mode, task=f"task-{len(self._asked)}", timeout_s=3600.0
            )
            self._asked.append(Asked(task, number, wanted))
            self._report.note(f"{task}: {mode} at node {number}")

    def _question(self, ordinal: int) -> tuple[str, Mode, tuple[str, ...]]:
        if self._random.random() < 0.3:
            prompt = f"question {ordinal}"
            return prompt, "direct", (f"reply to: {prompt}",)
        value = self._random.randrange(1000)
        work = [f"wait {self._random.uniform(0.0, 4.0):.2f}" for _ in range(3)]
        cells = [
            ("python", f"keep x {value}\n{work[0]}"),
            ("bash", f"{work[1]}\nsay {ordinal} from bash"),
            ("python", f"ask part {ordinal}"),
            ("python", f"{work[2]}\nshow x"),
        ]
        prompt = "\n\n".join(f"```{language}\n{code}\n```" for language, code in cells)
        wanted = (f"x is {value}", f"{ordinal} from bash", f"reply to: part {ordinal}")
        return prompt, "blocks", wanted

    # --- what goes wrong ------------------------------------------------------------------------

    async def _break_now_and_then(self, faults: trio.Nursery) -> None:
        """Begin faults; each ends by itself, the last ones after the others have stopped."""
        while True:
            await trio.sleep(self._random.expovariate(1 / FAULT_EVERY_S))
            fault = self._random.choice((self._lose, self._restart, self._cut))
            one, other = self._random.sample(self._numbers, 2)
            faults.start_soon(fault, one, other, self._random.uniform(0.5, FAULT_S_MAX))

    def _begin(self, fault: str, words: str) -> None:
        self._report.faults[fault] += 1
        self._report.note(f"{fault} {words}")

    async def _lose(self, one: int, _other: int, lasts_s: float) -> None:
        if one not in self._up or len(self._up) < 2:
            return
        self._begin("kill", f"node {one} for {lasts_s:.2f} s")
        await self._world.kill(one)
        await trio.sleep(lasts_s)
        await self._world.start(one)

    async def _restart(self, one: int, _other: int, _lasts_s: float) -> None:
        if one in self._up and len(self._up) > 1:
            self._begin("restart", f"node {one}")
            await self._world.restart(one)

    async def _cut(self, one: int, other: int, lasts_s: float) -> None:
        self._begin("cut", f"nodes {one} and {other} for {lasts_s:.2f} s")
        self._world.cut(one, other)
        await trio.sleep(lasts_s)
        self._world.mend(one, other)

    # --- what must hold -------------------------------------------------------------------------

    async def _look(self) -> None:
        """Compare what submitters show now with what they have shown before."""
        while True:
            for asked in self._asked:
                if self._world.is_up(asked.number):
                    self._compare(asked, self._world[asked.number].submitter.find(asked.task))
            await trio.sleep(LOOK_EVERY_S)

    def _compare(self, asked: Asked, now: Task) -> None:
        before = self._seen.get(asked.task)
        if before is not None:
            if now.term < before.term:
                raise ViolationError(f"{now.id}: term {now.term} after {before.term}")
            if now.digests[: before.entries] != before.digests:
                raise ViolationError(f"{now.id}: what was visible has changed")
            if before.is_over and (now.state, now.answer) != (before.state, before.answer):
                raise ViolationError(f"{now.id}: {now.state} after {before.state}")
        if before is None or (before.state, before.term, before.digests) != (
            now.state,
            now.term,
            now.digests,
        ):
            self._report.note(f"{now.id}: {now.state} term {now.term} {now.last_digest[:8]}")
        self._seen[asked.task] = now

    async def _wait_for_all(self) -> None:
        with trio.move_on_after(SETTLE_S):
            while not all(self._find(asked).is_over for asked in self._asked):  # noqa: ASYNC110
                await trio.sleep(LOOK_EVERY_S)
        for asked in self._asked:
            task = self._find(asked)
            if not task.is_over:
                raise ViolationError(
                    f"{task.id}: {task.state} ({task.why_waiting}) {SETTLE_S:g} s after the faults"
                )
            assert task.answer is not None
            if task.state != "answered":
                raise ViolationError(f"{task.id}: {task.state}: {task.answer.detail}")
            if missing := [words for words in asked.wanted if words not in task.answer.answer]:
                raise ViolationError(f"{task.id}: {missing} not in {task.answer.answer!r}")
            check_chain(task.id, self._world[asked.number].submitter.entries(task.id))

    def _find(self, asked: Asked) -> Task:
        return self._world[asked.number].submitter.find(asked.task)

    def _count(self) -> None:
        tasks = [self._find(asked) for asked in self._asked]
        self._report.tasks = len(tasks)
        self._report.terms = sum(task.term for task in tasks)
        self._report.entries = sum(task.entries for task in tasks)
        self._report.cells_begun = len(self._world.cells)
