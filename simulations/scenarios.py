"""Scenarios: who is there, on what network, with what to do, and what may go wrong. TOML files.

    scenario = load("home")            # simulations/scenarios/home.toml, or a path

A scenario and a seed make a plan (`plan.py`), which is told in one of the tiers.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kowalski.node.control_messages import ROLES, Role
from simulations.menu import CAMPUS, MENU, USUAL, Whom

FOLDER = Path(__file__).parent / "scenarios"

Chance = Annotated[float, Field(strict=True, ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(strict=True, ge=0.0, le=86_400.0)]


class ScenarioError(Exception):
    """A file that is no scenario: where, and what is wrong with it."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Devices(_Part):
    """So many devices of one kind."""

    count: Annotated[int, Field(strict=True, ge=1, le=10_000)]
    name: str
    languages: tuple[str, ...] = ("python", "bash")
    models: tuple[str, ...] = ("m",)
    roles: tuple[Role, ...] = ROLES
    slots: Annotated[int, Field(strict=True, ge=1, le=1000)] = 4
    model_slots: Annotated[int, Field(strict=True, ge=1, le=1000)] = 16
    token_ms: Annotated[float, Field(strict=True, ge=0.0)] = 0.0
    """How long its model takes for a token."""
    slowness: Annotated[float, Field(strict=True, ge=0.01, le=1000.0)] = 1.0
    """How many times as long as another a cell takes here."""
    speaks_newer: bool = False
    """A later version: says more than we know, and asks for what we do not have."""


class Network(_Part):
    latency_ms: Annotated[float, Field(strict=True, ge=0.0)] = 2.0
    jitter_ms: Annotated[float, Field(strict=True, ge=0.0)] = 8.0
    packet_loss: Chance = 0.0
    gossip_loss: Chance = 0.0
    gossip_replayed: Chance = 0.0
    """Old messages that come again, after half a minute to a minute."""
    mbit_per_s: Annotated[float, Field(strict=True, gt=0.0)] | None = None
    grain_ms: Annotated[float, Field(strict=True, ge=0.0)] = 4.0
    """What arrives within it arrives at once: fewer turns, a faster simulation."""


class Work(_Part):
    """What people ask of it."""

    every_s: Annotated[float, Field(strict=True, gt=0.0)] = 3.0
    tasks_max: Annotated[int, Field(strict=True, ge=0)] = 1000
    direct: Chance = 0.3
    """How many tasks are one model call; the others are cells with variables and sub-calls."""
    improvised: Chance = 0.0
    """How many have a model write their cells, which writes others each time it is asked."""
    batched: Chance = 0.0
    """How many of the tasks with cells ask many questions at once, too."""
    batch_calls_max: Annotated[int, Field(strict=True, ge=2, le=1000)] = 12
    detached: Chance = 0.0
    """How many are handed over to three peers, to go on without their submitter."""
    given: Chance = 0.0
    """How many of those with cells come with a file, for whoever leads or works for them."""
    repeated: Chance = 0.1
    """How many are submitted again: most the same, some with another prompt."""
    cancelled: Chance = 0.05
    cell_s_max: Seconds = 4.0
    hasty: Chance = 0.0
    """How many are worth nothing after a few seconds."""
    hasty_s: tuple[Seconds, Seconds] = (2.0, 12.0)


class Faults(_Part):
    every_s: Annotated[float, Field(strict=True, gt=0.0)] = 8.0
    lasts_s_max: Seconds = 15.0
    kinds: tuple[str, ...] = USUAL
    spared: tuple[str, ...] = ()
    """Names of devices that nothing befalls, by themselves; all hear them, whatever is cut."""
    is_swarm: bool = True
    """Each seed draws which of the kinds it knows at all: rare pairs become common."""


class Scenario(_Part):
    name: str
    about: str
    tier: Literal["A", "B"] = "A"
    share: Annotated[float, Field(strict=True, ge=0.0)] = 1.0
    """How many of a campaign's seeds are of this, against other scenarios'."""
    seconds: Annotated[float, Field(strict=True, gt=0.0)] = 30.0
    """The safety phase; afterwards everything heals."""
    devices: Annotated[tuple[Devices, ...], Field(min_length=1)]
    network: Network = Network()
    work: Work = Work()
    faults: Faults | None = Faults()
    clock_skew: Chance = 0.05
    """Clocks run up to so much faster or slower than the world's."""
    may_be_helpless: bool = False
    """Whether all models may fail at once: a task that wants one may then end without."""
    settle_s: Seconds = 90.0
    """In which every task ends once all faults have."""

    @property
    def nodes(self) -> int:
        return sum(one.count for one in self.devices)

    @property
    def is_spoofed(self) -> bool:
        """Whether somebody announces what is not so."""
        return self.faults is not None and "mdns-spoof" in self.faults.kinds

    @property
    def befallen(self) -> tuple[int, ...]:
        """The numbers of the nodes that faults may befall."""
        spared = self.faults.spared if self.faults else ()
        names = (one.name for one in self.devices for _ in range(one.count))
        return tuple(number for number, name in enumerate(names) if name not in spared)


def names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def split(seeds: int) -> dict[str, int]:
    """So many seeds, over all scenarios of ours by their shares; each with a share has one."""
    shares = {name: load(name).share for name in names()}
    total = sum(shares.values())
    return {
        name: max(1, round(seeds * share / total)) for name, share in shares.items() if share > 0
    }


def load(name: str) -> Scenario:
    """One of ours by its name, or a file.

    Raises:
        ScenarioError: there is none, or it is not one.
    """
    path = FOLDER / f"{name}.toml" if name in names() else Path(name)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = ", ".join(names())
        raise ScenarioError(f"{path}: {error.strerror}; there are {known}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: {error}") from error
    try:
        scenario = Scenario.model_validate({"name": path.stem, **raw})
    except ValidationError as error:
        raise ScenarioError(f"{path}: {first_complaint(error)}") from error
    if wrong := _why_not(scenario):
        raise ScenarioError(f"{path}: {wrong}")
    return scenario


def first_complaint(error: ValidationError) -> str:
    """Where the first thing is wrong, and what, in a line."""
    first = error.errors()[0]
    where = ".".join(str(step) for step in first["loc"])
    what = "there is no such key" if first["type"] == "extra_forbidden" else first["msg"]
    return f"{where}: {what}"


def _why_not(scenario: Scenario) -> str:
    """What is wrong with the faults of a scenario; empty if nothing."""
    faults = scenario.faults
    if faults is None:
        return ""
    menu = {kind: MENU[kind] for kind in CAMPUS} if scenario.tier == "B" else MENU
    if unknown := set(faults.kinds) - menu.keys():
        return f"faults.kinds: no fault is called {min(unknown)}; there are {', '.join(menu)}"
    if unknown := set(faults.spared) - {one.name for one in scenario.devices}:
        return f"faults.spared: no device is called {min(unknown)}"
    wants = {kind: 1 if MENU[kind].whom in {Whom.ONE, Whom.ALL} else 2 for kind in faults.kinds}
    for kind, count in wants.items():
        if count > len(scenario.befallen):
            return f"faults.kinds: {kind} wants {count} devices that it may befall"
    return ""
