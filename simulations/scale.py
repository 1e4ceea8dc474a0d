"""`python -m simulations scale`: tier B at any size, and what it cost to tell."""

from __future__ import annotations

import resource
import sys
import time

import click

from simulations import campus, plan, scenarios
from simulations.scenarios import Scenario

SETTLE_S = 180.0
"""Of the whole time: comparisons of tables among 1,000 nodes are that far apart."""

VAST = 2000
"""From so many nodes on nobody comes back: each would give every node a table of turns of its
own, and 10,000 of them do not fit."""

KINDS_FOR_VAST = ("lost", "freeze", "slow-worker", "lies-idle", "lies-busy", "gossip-lost")


def sized(nodes: int, minutes: float, *, has_faults: bool = True) -> Scenario:
    """The campus with so many nodes, as much work for each of them, and faults as often."""
    whole = scenarios.load("campus")
    assert whole.faults is not None
    share = nodes / whole.nodes
    counts = [max(1, round(one.count * share)) for one in whole.devices]
    counts[1] += nodes - sum(counts)
    faults = whole.faults
    if nodes > VAST:
        faults = faults.model_copy(update={"kinds": KINDS_FOR_VAST})
    seconds = 60 * minutes
    settle_s = min(SETTLE_S, seconds / 2)
    changes = {
        "name": f"campus-{nodes}",
        "seconds": seconds - settle_s,
        "settle_s": settle_s,
        "devices": tuple(
            one.model_copy(update={"count": count})
            for one, count in zip(whole.devices, counts, strict=True)
        ),
        "work": whole.work.model_copy(
            update={
                "every_s": whole.work.every_s / share,
                "cell_s_max": min(whole.work.cell_s_max, settle_s / 6),
            }
        ),
        "faults": faults if has_faults else None,
    }
    return whole.model_copy(update=changes)


@click.command("scale")
@click.option("--nodes", type=click.IntRange(10, 10_000), default=(1000,), multiple=True)
@click.option("--minutes", type=click.FloatRange(0.5), default=10.0, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--calm", is_flag=True, help="Without faults.")
def scale(nodes: tuple[int, ...], minutes: float, seed: int, *, calm: bool) -> None:
    """Tell a story of thousands, cores alone (tier B); exit code 1 if a promise was broken."""
    is_broken = False
    for count in nodes:
        began, began_cpu = time.perf_counter(), time.process_time()
        report = campus.tell(plan.draw(sized(count, minutes, has_faults=not calm), seed))
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{count} nodes, {report.lasted_s / 60:.1f} min: {cpu_s:.1f} CPU s, {wall_s:.1f} s "
            f"of clock, {peak_mb:.0f} MB at most, trace {report.trace_hash}"
        )
        print(campus.describe(report))
        for what, counts in (
            ("tasks", report.ends),
            ("faults", report.fired),
            ("messages", report.messages),
            ("looked at", report.evaluated),
        ):
            print(f"{what}: {', '.join(f'{name} {n}' for name, n in sorted(counts.items()))}")
        print(f"broken: {report.violation}" if report.violation else "no promise was broken")
        is_broken |= report.violation is not None
    sys.exit(1 if is_broken else 0)
