"""Who is there, in meshes too large for one machine: `python -m benchmarks.detectors`.

The machines of the nodes' failure detectors and connections, and nothing else of them, in virtual
time (`simulations.detectors`): waits, timeouts and lost packets, without the speed of a machine.
`unroutable`: that survivor sends it nothing any more; `failed`: the verdict has reached it.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

from benchmarks import machine
from simulations.detectors import Detectors, Weather
from simulations.routability import Routability

CALM_S = 10.0
PATIENCE_S = 60.0
FALSE_NODES, FALSE_LOSS = 50, 0.2
STALLS_S = (0.3, 0.6, 1.0, 1.5)
LOSSY = f"{FALSE_LOSS:.0%} of segments lost"
BUSY = f"one standing still each second, for {STALLS_S[0]} to {STALLS_S[-1]} s"


@dataclass(frozen=True, slots=True)
class Noticed:
    """Seconds from the crash, one figure a survivor; and survivors who were given up as well."""

    unroutable: tuple[float, ...]
    failed: tuple[float, ...]
    falsely: int


@dataclass(frozen=True, slots=True)
class Slander:
    """What nodes thought of others that were well: views of each kind, and CPU seconds."""

    suspicions: int
    unroutable: int
    verdicts: int
    cpu_s: float


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.detectors", description=__doc__)
    arguments.add_argument("--sizes", type=int, nargs="+", default=[16, 50, 64, 256])
    arguments.add_argument("--losses", type=float, nargs="+", default=[0.0, 0.05, 0.2])
    arguments.add_argument("--crashes", type=int, default=20, help="at each size (default 20)")
    arguments.add_argument("--node-hours", type=float, default=100.0, help="for false failures")
    options = arguments.parse_args()
    _say(machine.describe())
    head = ("unroutable p50, p99", "failed p50, p99", "never, falsely")
    _say(f"\n{'nodes':>5} {'loss':>5} " + " ".join(f"{one:>22}" for one in head))
    with ProcessPoolExecutor() as pool:
        for size in options.sizes:
            for loss in options.losses:
                act = partial(_crash, size, loss)
                _tell(size, loss, list(pool.map(act, range(options.crashes))))
        hours = options.node_hours
        for weather in (LOSSY, BUSY) if hours else ():
            _tell_false(weather, hours, list(pool.map(partial(_well, weather, hours / 2), (1, 2))))


def _crash(size: int, loss: float, seed: int) -> Noticed:
    """One node loses its power: nothing closes its connections."""
    world = Detectors(size, seed=seed, weather=Weather(loss=loss))
    routability = Routability(world)
    # Anywhere within a round of probes.
    world.run(CALM_S + seed / 37)
    began = world.now
    world.crash(0)
    world.run(began + PATIENCE_S)
    falsely = {
        (one.observer, one.about) for one in world.changes if one.about and one.state == "failed"
    }
    failed: dict[int, float] = {}
    silent: dict[int, float] = {}
    for turn in routability.turns:
        if turn.about == 0 and turn.at >= began and not turn.is_routable:
            silent.setdefault(turn.observer, turn.at)
    for change in world.changes:
        if change.about == 0 and change.at >= began and change.state == "failed":
            failed.setdefault(change.observer, change.at)
    return Noticed(
        tuple(at - began for at in silent.values()),
        tuple(at - began for at in failed.values()),
        len(falsely),
    )


def _well(weather: str, node_hours: float, seed: int) -> Slander:
    """Nobody crashes."""
    loss = FALSE_LOSS if weather == LOSSY else 0.0
    world = Detectors(FALSE_NODES, seed=seed, weather=Weather(loss=loss))
    routability = Routability(world)
    if weather == BUSY:
        _let_stand_still(world, random.Random(seed))
    began = time.process_time()
    world.run(node_hours * 3600.0 / FALSE_NODES)
    suspicions, verdicts = (
        sum(one.state == state for one in world.changes) for state in ("suspect", "failed")
    )
    unroutable = sum(not turn.is_routable for turn in routability.turns)
    return Slander(suspicions, unroutable, verdicts, time.process_time() - began)


def _let_stand_still(world: Detectors, dice: random.Random) -> None:
    def again() -> None:
        world.stall(dice.randrange(FALSE_NODES), dice.choice(STALLS_S))
        world.after(dice.expovariate(1.0), again)

    again()


def _tell(size: int, loss: float, crashes: Sequence[Noticed]) -> None:
    unroutable = [at for one in crashes for at in one.unroutable]
    failed = [at for one in crashes for at in one.failed]
    never = len(crashes) * (size - 1) - len(failed)
    falsely = sum(one.falsely for one in crashes)
    _say(
        f"{size:5} {loss:5.0%} {_shares(unroutable):>22} {_shares(failed):>22}"
        f" {f'{never}, {falsely}':>22}"
    )


def _shares(values: Iterable[float]) -> str:
    found = sorted(values)
    if not found:
        return "-"
    return f"{found[len(found) // 2]:.2f}, {found[len(found) * 99 // 100]:.2f}"


def _tell_false(weather: str, node_hours: float, lives: Sequence[Slander]) -> None:
    _say(
        f"\n{FALSE_NODES} nodes that are well, {weather}, {node_hours:g} node-hours:"
        f" {sum(one.verdicts for one in lives)} verdicts,"
        f" {sum(one.suspicions for one in lives)} views of suspicions, contradicted,"
        f" {sum(one.unroutable for one in lives)} of `unroutable`;"
        f" {sum(one.cpu_s for one in lives):.0f} CPU s"
    )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
