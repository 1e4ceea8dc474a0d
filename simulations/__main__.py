"""`python -m simulations run`: one seeded story, and whether every promise was kept."""

from __future__ import annotations

import logging
import sys
import time

import click
import structlog

from simulations.scenario import ABLE, ViolationError, run
from simulations.world import Part


@click.group()
def main() -> None:
    """The mesh under virtual time and seeded faults."""


@main.command("run")
@click.option("--nodes", type=click.IntRange(2, 50), default=3, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--minutes", type=click.FloatRange(0.1, 600), default=1.0, show_default=True)
@click.option("--trace", is_flag=True, help="Print what happened, line by line.")
@click.option("--log-level", type=click.Choice(["debug", "info", "error"]), default="error")
def run_one(nodes: int, seed: int, minutes: float, *, trace: bool, log_level: str) -> None:
    """Tell the story of one seed; exit code 1 if a promise was broken."""
    level = logging.getLevelNamesMapping()[log_level.upper()]
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    sys.exit(tell(nodes, seed, minutes, is_traced=trace))


def tell(nodes: int, seed: int, minutes: float, *, is_traced: bool, part: Part = ABLE) -> int:
    """Run one story and print how it went; the exit code."""
    began = time.perf_counter()
    try:
        report = run(nodes=nodes, seed=seed, minutes=minutes, part=part)
    except ViolationError as violation:
        options = f"--nodes {nodes} --seed {seed} --minutes {minutes:g}"
        print(f"seed {seed}: {violation}")
        print(f"replay: python -m simulations run {options} --trace --log-level info")
        return 1
    if is_traced:
        print("\n".join(report.trace))
    faults = ", ".join(f"{count} {fault}" for fault, count in sorted(report.faults.items()))
    print(f"seed {seed}: trace {report.trace_hash}, {time.perf_counter() - began:.1f} s")
    print(
        f"{report.tasks} tasks answered, {report.terms} terms, {report.entries} entries, "
        f"{report.cells_begun} cells begun; faults: {faults or 'none'}"
    )
    return 0


if __name__ == "__main__":
    main()
