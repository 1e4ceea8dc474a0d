"""One script in two tiers: a home of three, as its user sees it, in the simulator and for real.

A script submits one task at node `a`, does something to whoever leads it, or runs its cells, and
undoes that in the end. What is seen is what the control socket of `a` tells: its verbs are the same
in both tiers, and so is the Python of the cells. Only bounds of time differ, by what a busy machine
may add.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import trio

from kowalski.node.control_messages import Role
from kowalski.node.repl.scripted_sessions import ScriptedCell, ScriptedState
from kowalski.node.repl.seam import CellOutcome
from simulations.determinism import decided_by
from simulations.injection import Injection
from simulations.logs import told_to
from simulations.menu import Fault
from simulations.virtual_time import JumpingClock
from simulations.witness import Witness
from simulations.world import Part, World, open_world

Row = Mapping[str, object]

Roles = Mapping[str, tuple[Role, ...]]

LED: Roles = {
    "a": ("submit", "repl"),
    "b": ("submit", "coordinate"),
    "c": ("submit", "coordinate"),
}
"""Of three devices: `a` is asked and runs cells, `b` or `c` leads."""

HELPED: Roles = {
    "a": ("submit", "coordinate"),
    "b": ("submit", "repl"),
    "c": ("submit", "repl"),
}
"""`a` is asked and leads, `b` or `c` runs cells."""

LOOK_S = 0.05
IDLE_S_MAX = 60.0
"""From when it is back until a node has nothing left to do."""
FOR_LONG_S = 1e6
STOPPED_S = 20.0
"""Of a simulated process, whose end is set when it begins: longer than until it is given up and
the task has ended. A real one goes on then."""
REQUEST: dict[str, object] = {
    "mode": "blocks",
    "timeout_s": 120.0,
    "prompt": """\
Three steps.

```python
import time
total = sum(range(1000))
print("first", total)
```

```python
time.sleep(2)
total += 1
print("second", total)
```

```python
print("third", total)
```
""",
}

What = Literal["nothing", "killed", "cut off", "stopped"]


@dataclass(frozen=True, slots=True)
class Script:
    """What befalls a node once the first cell is done; how soon `a` may and must notice.

    Whom: who leads, or who ran that cell. Seconds from then on: until nothing is sent to it any
    more, and until it is given up.
    """

    what: What
    whom: Literal["leader", "worker"] = "leader"
    unroutable_s_max: float = 0.0
    failed_s: tuple[float, float] = (0.0, 0.0)

    @property
    def roles(self) -> Roles:
        return LED if self.whom == "leader" else HELPED

    def __str__(self) -> str:
        return self.what if self.what == "nothing" else f"the {self.whom} is {self.what}"


SCRIPTS = (
    Script("nothing"),
    # Its connections close, which is evidence to go by (design: 0.3 s; failed p99 8 s).
    Script("killed", unroutable_s_max=1.0, failed_s=(0.2, 8.0)),
    # Nobody is told: probes have to find out (design: unroutable p99 4 s, failed p99 8 s).
    Script("cut off", unroutable_s_max=4.0, failed_s=(1.0, 8.0)),
)

MORE_SCRIPTS = (
    # It goes on where it was, in a term long over: nothing of what it says then may be seen.
    Script("stopped", unroutable_s_max=4.0, failed_s=(1.0, 8.0)),
    # The second cell dies with the variables of the first: both are run again elsewhere.
    Script("killed", "worker", unroutable_s_max=1.0, failed_s=(0.2, 8.0)),
    # It comes back with a session that nobody wants any more.
    Script("cut off", "worker", unroutable_s_max=4.0, failed_s=(1.0, 8.0)),
    # It goes on where it was, with that session, and what it still has to say of it.
    Script("stopped", "worker", unroutable_s_max=4.0, failed_s=(1.0, 8.0)),
)
"""For `make conformance`: each takes real nodes a quarter of a minute."""


class Telling(NamedTuple):
    """What of a task must not change any more once it has ended."""

    cells: list[tuple[int, str]]
    workers: list[str]
    state: str
    answer: str


@dataclass(slots=True)
class History:
    """What `a` shows. Leaders and workers are `first`, `second`, in the order of their coming."""

    leaders: list[str] = field(default_factory=list)
    """By name, in order; of the terms from 1 on."""
    terms: list[int] = field(default_factory=list)
    cells: list[tuple[int, str]] = field(default_factory=list)
    """Number and status, in the order in which they became visible."""
    workers: list[str] = field(default_factory=list)
    """By name: who ran each of them."""
    printed: dict[int, str] = field(default_factory=dict)
    """By cell, as it was shown while it ran, and while it was run again elsewhere."""
    state: str = ""
    answer: str = ""
    retold: Telling | None = None
    """By a journal that is read once all is over, and who was away has had its say."""
    verdicts: list[tuple[str, str]] = field(default_factory=list)
    """Whom `a` came to hold for failed, and for alive again."""
    unroutable_after_s: float | None = None
    failed_after_s: float | None = None

    @property
    def telling(self) -> Telling:
        return Telling(self.cells, self.workers, self.state, self.answer)

    @property
    def visible(self) -> dict[str, object]:
        """What must be the same in both tiers, to the word."""
        leaders, workers = _ranks(self.leaders, "leader"), _ranks(self.workers, "worker")
        ranks = workers | leaders
        # How much a next leader shows of a cell that runs depends on how soon it joins it.
        printed = {"printed": self.printed} if self.terms == [1] else {}
        return {
            **printed,
            "leaders": [leaders[name] for name in self.leaders],
            "terms": self.terms,
            "cells": self.cells,
            "workers": [workers[name] for name in self.workers],
            "state": self.state,
            "answer": self.answer,
            "is told alike again": self.retold == self.telling,
            "verdicts": [(ranks.get(name, name), state) for name, state in self.verdicts],
        }


def _ranks(names: list[str], what: str) -> dict[str, str]:
    order = ("first", "second", "third")
    return {name: f"{order[at]} {what}" for at, name in enumerate(dict.fromkeys(names))}


class Onlooker:
    """Makes a history of what `a` tells, whoever asks it."""

    def __init__(self) -> None:
        self.history = History()
        self.task = ""
        """Its name, once it is known."""
        self._befell: tuple[str, float] | None = None
        self._states: dict[str, str] = {}

    def heard(self, event: Row) -> bool:
        """Take in an event of the task; whether it is the moment for the script's fault."""
        history = self.history
        match event:
            case {"kind": "submitted", "task": str(task)}:
                self.task = task
            case {"kind": "output", "cell": int(cell), "text": str(text)}:
                history.printed[cell] = history.printed.get(cell, "") + text
            case {"kind": "coordinator", "name": str(name), "term": int(term)}:
                history.leaders.append(name)
                history.terms.append(term)
            case {"kind": "cell", "cell": int(cell), "status": str(status)} if status != "started":
                history.cells.append((cell, status))
                history.workers.append(str(event.get("name", "")))
                return history.cells == [(0, "done")]
            case _:
                pass
        return False

    def ended(self, reply: Row) -> None:
        self.history.state, self.history.answer = str(reply["state"]), str(reply["answer"])

    def retold(self, events: Iterable[Row], reply: Row) -> None:
        """The task has been told once more, from its beginning."""
        again = Onlooker()
        for event in events:
            again.heard(event)
        again.ended(reply)
        self.history.retold = again.history.telling

    def whom(self, script: Script) -> str:
        """Whom the script's fault befalls, by name."""
        history = self.history
        return history.leaders[-1] if script.whom == "leader" else history.workers[-1]

    def befell(self, name: str, at_s: float) -> None:
        """The script's fault begins now, at this node."""
        self._befell = (name, at_s)

    def looked(self, rows: list[Row], at_s: float) -> None:
        """At the verb `peers` of `a`."""
        for row in rows:
            name, state = str(row["name"]), str(row["membership"])
            if state in {"alive", "failed"} and state != self._states.setdefault(name, "alive"):
                self._states[name] = state
                self.history.verdicts.append((name, state))
            if self._befell is None or name != self._befell[0]:
                continue
            after_s = at_s - self._befell[1]
            if not row["routable"] and self.history.unroutable_after_s is None:
                self.history.unroutable_after_s = after_s
            if state == "failed" and self.history.failed_after_s is None:
                self.history.failed_after_s = after_s

    @property
    def has_given_up(self) -> bool:
        """Whether the one that something befell is held for failed."""
        return self._befell is not None and self._states.get(self._befell[0]) == "failed"

    @property
    def has_forgiven(self) -> bool:
        return self._befell is not None and self._states.get(self._befell[0]) == "alive"


def broken_bounds(script: Script, history: History, *, slack_s: float = 0.0) -> list[str]:
    """What came too early or too late, in words. `slack_s`: what the machine may add."""
    if script.what == "nothing":
        return [f"verdicts where nothing happened: {history.verdicts}"] if history.verdicts else []
    least_s, most_s = script.failed_s
    bounds = (
        ("unroutable", history.unroutable_after_s, 0.0, script.unroutable_s_max + slack_s),
        ("failed", history.failed_after_s, least_s, most_s + slack_s),
    )
    return [
        f"{what} after {after_s} s, not within {least:g} to {most:g} s"
        for what, after_s, least, most in bounds
        if after_s is None or not least <= after_s <= most
    ]


# --- in the simulator ---------------------------------------------------------------------------


def plain_python(code: str, state: ScriptedState) -> ScriptedCell:
    """A `scripted_sessions.Script` for cells of ours that need no sandbox: it runs them.

    Sleep takes virtual time. A session is what its cells leave behind, run one after the other.
    """
    slept: list[float] = []
    printed = io.StringIO()
    variables: dict[str, Any] = {}
    with contextlib.redirect_stdout(printed):
        for each in (*state.codes, code):
            slept.clear()
            printed.seek(0)
            printed.truncate()
            plain = each.replace("import time\n", "")
            variables["time"] = SimpleNamespace(sleep=slept.append)
            exec(plain, variables)  # noqa: S102 the text is above
    return ScriptedCell(
        CellOutcome("ok", stdout=printed.getvalue().encode(), exit_code=0), duration_s=sum(slept)
    )


def simulated(script: Script, seed: int = 1) -> History:
    """Tell the script in tier A."""
    onlooker, witness = Onlooker(), Witness()
    with decided_by(seed), told_to(witness):
        trio.run(_told, script, seed, onlooker, witness, clock=JumpingClock())
    return onlooker.history


async def _told(script: Script, seed: int, onlooker: Onlooker, witness: Witness) -> None:
    parts = [
        Part(
            languages={"python": "3"} if "repl" in roles else {},
            roles=roles,
            script=plain_python,
            settings={"name": name},
        )
        for name, roles in script.roles.items()
    ]
    moment, ended = trio.Event(), trio.Event()
    async with (
        open_world(parts, seed=seed, witness=witness) as world,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_look, world, onlooker)
        nursery.start_soon(_follow, world, onlooker, moment, ended)
        if script.what != "nothing":
            await moment.wait()
            await _befall(world, script, onlooker, ended)
        await ended.wait()
        await _tell_again(world, onlooker)
        nursery.cancel_scope.cancel()


async def _befall(world: World, script: Script, onlooker: Onlooker, ended: trio.Event) -> None:
    """Lasts until the task has ended and that node is given up; then until it is back, and idle."""
    name = onlooker.whom(script)
    number = list(script.roles).index(name)
    kind = {"killed": "crash", "cut off": "isolate", "stopped": "freeze"}[script.what]
    fault = Fault(kind, 0.0, FOR_LONG_S, (number,), STOPPED_S)
    onlooker.befell(name, trio.current_time())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Injection(world).inject, fault)
        await ended.wait()
        await world.until(lambda: onlooker.has_given_up)
        nursery.cancel_scope.cancel()
    await world.until(lambda: onlooker.has_forgiven)
    with trio.fail_after(IDLE_S_MAX):
        while (await _asked(world, number, "status"))["load"]:  # noqa: ASYNC110 as `World.until`
            await trio.sleep(LOOK_S)


async def _asked(world: World, number: int, verb: str, **of: object) -> dict[str, object]:
    async def ignore(_event: dict[str, object]) -> None:
        await trio.lowlevel.checkpoint()

    return await world.verbs(number)[verb](of, ignore)


async def _tell_again(world: World, onlooker: Onlooker) -> None:
    events: list[dict[str, object]] = []

    async def emit(event: dict[str, object]) -> None:
        await trio.lowlevel.checkpoint()
        events.append(event)

    onlooker.retold(events, await world.verbs(0)["attach"]({"task": onlooker.task}, emit))


async def _follow(world: World, onlooker: Onlooker, moment: trio.Event, ended: trio.Event) -> None:
    async def emit(event: dict[str, object]) -> None:
        await trio.lowlevel.checkpoint()
        if onlooker.heard(event):
            moment.set()

    onlooker.ended(await world.verbs(0)["submit"]({**REQUEST, "follow": True}, emit))
    ended.set()


async def _look(world: World, onlooker: Onlooker) -> None:
    while True:
        rows = (await _asked(world, 0, "peers"))["peers"]
        assert isinstance(rows, list)
        onlooker.looked(rows, trio.current_time())
        await trio.sleep(LOOK_S)
