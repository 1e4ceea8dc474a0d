"""Many seeds of one scenario, on as many cores as are given, and what came of them all together."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field

from simulations import campus, story
from simulations.plan import Plan, draw
from simulations.reports import Report
from simulations.scenarios import Scenario
from simulations.witness import Violation

SEEDS_PER_PROCESS = 200
"""A process is replaced now and then, so that a long run keeps to its memory."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one seed. `crash` is where the simulator itself, or a node, fell over."""

    seed: int
    trace_hash: str
    violation: Violation | None
    crash: str
    fired: dict[str, int]
    evaluated: Counter[str]
    messages: Counter[str]
    ends: Counter[str]
    task_s: tuple[float, ...]
    cells_begun: int
    cells_visible: int
    virtual_s: float
    cpu_s: float

    @property
    def is_fine(self) -> bool:
        return self.violation is None and not self.crash


@dataclass(slots=True)
class Tally:
    """All outcomes together."""

    outcomes: int = 0
    broken: list[Outcome] = field(default_factory=list)
    fired: Counter[str] = field(default_factory=Counter)
    evaluated: Counter[str] = field(default_factory=Counter)
    messages: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    task_s: list[float] = field(default_factory=list)
    cells_begun: int = 0
    cells_visible: int = 0
    virtual_s: float = 0.0
    cpu_s: float = 0.0

    def add(self, outcome: Outcome) -> None:
        self.outcomes += 1
        if not outcome.is_fine:
            self.broken.append(outcome)
        self.fired.update(outcome.fired)
        self.evaluated.update(outcome.evaluated)
        self.messages.update(outcome.messages)
        self.ends.update(outcome.ends)
        self.task_s += outcome.task_s
        self.cells_begun += outcome.cells_begun
        self.cells_visible += outcome.cells_visible
        self.virtual_s += outcome.virtual_s
        self.cpu_s += outcome.cpu_s


def tell(plan: Plan, *, keeps_trace: bool = False) -> Report:
    """The story of a plan, in the tier that its scenario names."""
    if plan.scenario.tier == "B":
        return campus.tell(plan)
    return story.tell(plan, keeps_trace=keeps_trace)


def told(plan: Plan) -> Outcome:
    """Tell one story; nothing that happens in it is raised."""
    began = time.process_time()
    crash = ""
    try:
        report = tell(plan)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        report = Report(plan)
        crash = "".join(traceback.format_exception(error))
    return Outcome(
        seed=plan.seed,
        trace_hash=report.trace_hash,
        violation=report.violation,
        crash=crash,
        fired=report.fired,
        evaluated=report.evaluated,
        messages=report.messages,
        ends=report.ends,
        task_s=tuple(report.task_s),
        cells_begun=report.cells_begun,
        cells_visible=report.cells_visible,
        virtual_s=report.lasted_s,
        cpu_s=time.process_time() - began,
    )


def _told_in_a_process(given: tuple[Scenario, int]) -> tuple[str, Outcome]:
    scenario, seed = given
    return scenario.name, told(draw(scenario, seed))


def run(scenario: Scenario, seeds: Iterable[int], *, jobs: int) -> Iterator[Outcome]:
    """The outcome of each seed, as they come; in order with one job."""
    for _, outcome in run_all([(scenario, seed) for seed in seeds], jobs=jobs):
        yield outcome


def run_all(
    given: list[tuple[Scenario, int]], *, jobs: int
) -> Generator[tuple[str, Outcome], None, None]:
    """The same for seeds of several scenarios, with whose each is. Closed, its processes end."""
    if jobs == 1 or len(given) == 1:
        yield from map(_told_in_a_process, given)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, maxtasksperchild=SEEDS_PER_PROCESS) as pool:
        yield from pool.imap_unordered(_told_in_a_process, given)


def tally(
    outcomes: Iterable[Outcome], on_outcome: Callable[[Outcome], None] = lambda _outcome: None
) -> Tally:
    total = Tally()
    for outcome in outcomes:
        total.add(outcome)
        on_outcome(outcome)
    return total
