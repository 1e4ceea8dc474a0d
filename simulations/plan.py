"""A scenario and a seed make a plan: what is asked when, what goes wrong when. Data, all of it.

What is asked and what goes wrong are drawn by dice of their own, so that a plan with fewer faults
is the same plan otherwise. A plan can be written down, told again, and shrunk.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from kowalski.protocol.messages.task import Mode
from simulations.menu import MENU, Fault, draw_faults, draw_swarm
from simulations.scenarios import Scenario, Work, first_complaint

IMPROVISE = "improvise"
"""Begins the prompt of a task whose cells the model of a story writes."""

TASK_TIMEOUT_S = 3600.0
"""Of those who have all the time of a story."""

AskKind = Literal["submit", "again", "conflict", "cancel"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One thing that a person does. `node` is where, or the next one that is up.

    `cells` are the (language, code) of the task's cells, none where it is one model call; `wanted`
    is what must stand in its answer.
    """

    kind: AskKind
    at_s: float
    node: int
    task: str
    prompt: str = ""
    mode: Mode = "auto"
    cells: tuple[tuple[str, str], ...] = ()
    wanted: tuple[str, ...] = ()
    timeout_s: float = TASK_TIMEOUT_S
    is_detached: bool = False
    """Handed over to three peers for good."""
    given_bytes: int = 0
    """How large a file comes with it; 0: none."""

    @property
    def is_hasty(self) -> bool:
        return self.timeout_s < TASK_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Clock:
    """Of one node: how fast it runs, and what it showed when the world began."""

    rate: float
    offset_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    scenario: Scenario
    seed: int
    asks: tuple[Ask, ...]
    faults: tuple[Fault, ...]
    clocks: tuple[Clock, ...]

    def without(self, faults: frozenset[int]) -> Plan:
        """The same without the faults of these numbers."""
        kept = tuple(fault for number, fault in enumerate(self.faults) if number not in faults)
        return replace(self, faults=kept)


def draw(scenario: Scenario, seed: int) -> Plan:
    """The plan of a seed: always the same one."""
    faults: tuple[Fault, ...] = ()
    if scenario.faults is not None:
        dice = random.Random(f"{seed} {scenario.name} faults")
        kinds = scenario.faults.kinds
        if scenario.faults.is_swarm:
            kinds = draw_swarm(dice, kinds)
        faults = draw_faults(
            dice,
            kinds=kinds,
            nodes=scenario.befallen,
            every_s=scenario.faults.every_s,
            lasts_s_max=scenario.faults.lasts_s_max,
            until_s=scenario.seconds,
        )
    return Plan(
        scenario,
        seed,
        asks=tuple(_asks(scenario, random.Random(f"{seed} {scenario.name} asks"))),
        faults=faults,
        clocks=tuple(_clocks(scenario, random.Random(f"{seed} {scenario.name} clocks"))),
    )


def _clocks(scenario: Scenario, dice: random.Random) -> Iterator[Clock]:
    for _ in range(scenario.nodes):
        skew = dice.uniform(-scenario.clock_skew, scenario.clock_skew)
        yield Clock(1.0 + skew, dice.uniform(0.0, 1e6) if scenario.clock_skew else 0.0)


def _asks(scenario: Scenario, dice: random.Random) -> Iterator[Ask]:
    work = scenario.work
    at_s, ordinal = dice.expovariate(1 / work.every_s), 0
    asks: list[Ask] = []
    while at_s < scenario.seconds and ordinal < work.tasks_max:
        submit = _submit(scenario, work, dice, ordinal, at_s)
        if work.hasty and dice.random() < work.hasty:
            submit = replace(submit, timeout_s=round(dice.uniform(*work.hasty_s), 2))
        if work.detached and dice.random() < work.detached:
            submit = replace(submit, is_detached=True)
        if work.given and submit.cells and dice.random() < work.given:
            submit = replace(submit, given_bytes=dice.randrange(100, 20_000))
        asks.append(submit)
        asks += _what_else(submit, scenario, dice)
        ordinal += 1
        at_s += dice.expovariate(1 / work.every_s)
    yield from sorted(asks, key=lambda ask: ask.at_s)


def _submit(scenario: Scenario, work: Work, dice: random.Random, ordinal: int, at_s: float) -> Ask:
    task, node = f"task-{ordinal}", dice.randrange(scenario.nodes)
    if dice.random() < work.direct:
        prompt = f"question {ordinal}"
        answer = f"reply to: {prompt}"
        return Ask("submit", at_s, node, task, prompt, "direct", wanted=(answer,))
    if dice.random() < work.improvised:
        prompt = f"{IMPROVISE} {ordinal}"
        return Ask("submit", at_s, node, task, prompt, "rlm", wanted=(f"done {ordinal}",))
    value, other = dice.randrange(1000), dice.randrange(1000)
    waits = [f"wait {dice.uniform(0.0, work.cell_s_max):.2f}" for _ in range(3)]
    wanted = (f"x is {value}", f"y is {other}", f"{ordinal} from bash", f"reply to: part {ordinal}")
    batch, replies = "", list[str]()
    if work.batched and dice.random() < work.batched:
        calls = dice.randint(2, work.batch_calls_max)
        batch = f"\nask-many {calls} line {ordinal} of {calls}:"
        replies = [f"reply to: line {ordinal} of {calls}: {n}" for n in range(calls)]
    cells = (
        ("python", f"keep x {value}\n{waits[0]}\nsay {ordinal} begins"),
        ("bash", f"{waits[1]}\nsay {ordinal} from bash"),
        ("python", f"keep y {other}\nask part {ordinal}{batch}"),
        ("python", f"{waits[2]}\nshow x\nshow y\nsay {ordinal} ends"),
    )
    prompt = "\n\n".join(f"```{language}\n{code}\n```" for language, code in cells)
    return Ask("submit", at_s, node, task, prompt, "blocks", cells, (*wanted, *replies))


def _what_else(submit: Ask, scenario: Scenario, dice: random.Random) -> Iterator[Ask]:
    """Second thoughts about a task: asked again, with another prompt, or taken back."""
    later_s = submit.at_s + dice.expovariate(1 / 4.0)
    if dice.random() < scenario.work.repeated:
        yield replace(submit, kind="again", at_s=later_s)
        if dice.random() < 0.5:
            prompt = f"{submit.prompt} or not"
            yield replace(submit, kind="conflict", at_s=later_s, prompt=prompt)
    if dice.random() < scenario.work.cancelled:
        yield replace(submit, kind="cancel", at_s=later_s)


# --- on paper -----------------------------------------------------------------------------------


def to_json(plan: Plan) -> str:
    """Everything that the story needs, readable by `from_json`."""
    written = {
        "scenario": plan.scenario.model_dump(mode="json"),
        "seed": plan.seed,
        "asks": [asdict(ask) for ask in plan.asks],
        "faults": [asdict(fault) for fault in plan.faults],
        "clocks": [asdict(clock) for clock in plan.clocks],
    }
    return json.dumps(written, indent=1)


def from_json(text: str) -> Plan:
    """Raises ValueError: this is no plan; in one line."""
    try:
        read: dict[str, Any] = json.loads(text)
        plan = Plan(
            scenario=Scenario.model_validate(read["scenario"]),
            seed=int(read["seed"]),
            asks=_ASKS.validate_python(_known(Ask, read["asks"])),
            faults=_FAULTS.validate_python(_known(Fault, read["faults"])),
            clocks=_CLOCKS.validate_python(_known(Clock, read["clocks"])),
        )
    except ValidationError as wrong:
        raise ValueError(f"this is no plan: {first_complaint(wrong)}") from wrong
    except (KeyError, TypeError) as wrong:
        raise ValueError(f"this is no plan: {wrong!r}") from wrong
    if unknown := {one.kind for one in plan.faults} - MENU.keys():
        raise ValueError(f"this is no plan: no fault is called {min(unknown)}")
    there = range(plan.scenario.nodes)
    numbers = {n for one in plan.faults for n in one.nodes} | {one.node for one in plan.asks}
    if strangers := numbers - set(there):
        raise ValueError(f"this is no plan: there is no node {min(strangers)}")
    return plan


_ASKS = TypeAdapter(tuple[Ask, ...])
_FAULTS = TypeAdapter(tuple[Fault, ...])
_CLOCKS = TypeAdapter(tuple[Clock, ...])


def _known(kind: type[Ask | Fault | Clock], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Raises TypeError: one has a field that is none of these."""
    names = {one.name for one in fields(kind)}
    for row in rows:
        if unknown := row.keys() - names:
            raise TypeError(f"{kind.__name__} has no {min(unknown)}")
    return rows
