"""Who is there, in meshes too large for one machine: `python -m benchmarks.detectors`.

The failure detectors of the nodes, and nothing else of them, in virtual time
(`simulations.detectors`): waits, timeouts and lost packets, without the speed of a machine.
`unroutable`: that survivor sends it nothing any more; `failed`: the verdict has reached it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

from benchmarks import machine
from kowalski.mesh.connections import Timeouts
from simulations.detectors import Detectors, Weather

CALM_S = 10.0
PATIENCE_S = 60.0
FALSE_NODES, FALSE_LOSS = 50, 0.2


@dataclass(frozen=True, slots=True)
class Noticed:
    """Seconds from the crash, one figure a survivor; and survivors who were given up as well."""

    unroutable: tuple[float, ...]
    failed: tuple[float, ...]
    falsely: int


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
        if options.node_hours:
            _tell_false(list(pool.map(partial(_calm, options.node_hours / 2), (1, 2))))


def _crash(size: int, loss: float, seed: int) -> Noticed:
    """One node loses its power: nothing closes its connections."""
    world = Detectors(size, seed=seed, weather=Weather(loss=loss))
    # Anywhere within a round of probes.
    world.run(CALM_S + seed / 37)
    began = world.now
    world.crash(0)
    world.run(began + PATIENCE_S)
    falsely = {
        (one.observer, one.about) for one in world.changes if one.about and one.state == "failed"
    }
    failed: dict[int, float] = {}
    silent: dict[int, float] = {
        observer: at
        for at, observer, about in reversed(world.unroutable)
        if about == 0 and at >= began
    }
    for change in world.changes:
        if change.about == 0 and change.at >= began:
            observer = change.observer
            # Whoever hears of a suspicion asks for itself, and one miss is enough then.
            wait_s = Timeouts().verify_s if change.state == "suspect" else 0.0
            at = change.at + wait_s
            silent[observer] = min(at, silent.get(observer, at))
            if change.state == "failed":
                failed.setdefault(observer, change.at)
    return Noticed(
        tuple(at - began for at in silent.values()),
        tuple(at - began for at in failed.values()),
        len(falsely),
    )


def _calm(node_hours: float, seed: int) -> tuple[float, float, int, int]:
    """Nobody crashes: hours lived, their CPU seconds, suspicions, and verdicts."""
    world = Detectors(FALSE_NODES, seed=seed, weather=Weather(loss=FALSE_LOSS))
    began = time.process_time()
    world.run(node_hours * 3600.0 / FALSE_NODES)
    counts = [sum(one.state == state for one in world.changes) for state in ("suspect", "failed")]
    return node_hours, time.process_time() - began, counts[0], counts[1]


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


def _tell_false(lives: Sequence[tuple[float, float, int, int]]) -> None:
    hours, cpu_s, suspicions, verdicts = (sum(column) for column in zip(*lives, strict=True))
    _say(
        f"\n{FALSE_NODES} nodes that are well, {FALSE_LOSS:.0%} of segments lost, {hours:g}"
        f" node-hours: {verdicts} verdicts, {suspicions} views of suspicions, contradicted;"
        f" {cpu_s:.0f} CPU s"
    )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
