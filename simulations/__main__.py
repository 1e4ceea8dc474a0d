"""`python -m simulations`: stories of seeds, told, told again, and made shorter."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from statistics import quantiles

import click

from simulations import artefacts, mutants, plan, scenarios, seeds, shrinking, story
from simulations.artefacts import Artefact
from simulations.mutation import StaleMutantError
from simulations.plan import Plan
from simulations.scenarios import Scenario, ScenarioError
from simulations.seeds import Outcome, Tally
from simulations.story import Report

ARTEFACTS = Path("build/simulations")
CORES = os.cpu_count() or 1
EVENTS_SHOWN = 40


@click.group()
def main() -> None:
    """The mesh under virtual time and seeded faults: the same code, ten thousand bad days."""


def _scenario(_context: click.Context, _parameter: click.Parameter, name: str) -> Scenario:
    try:
        return scenarios.load(name)
    except ScenarioError as wrong:
        raise click.BadParameter(str(wrong)) from wrong


scenario_option = click.option(
    "--scenario",
    default="home",
    show_default=True,
    callback=_scenario,
    help=f"One of {', '.join(scenarios.names())}, or a TOML file.",
)


@main.command("run")
@scenario_option
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="The first.")
@click.option("--seeds", "count", type=click.IntRange(1), default=1, show_default=True)
@click.option("--jobs", type=click.IntRange(1), default=CORES, show_default=True)
@click.option("--trace", is_flag=True, help="Print what happened, line by line (one seed).")
@click.option("--out", type=click.Path(path_type=Path), default=ARTEFACTS, show_default=True)
def run_seeds(
    scenario: Scenario, seed: int, count: int, jobs: int, *, trace: bool, out: Path
) -> None:
    """Tell the stories of seeds; exit code 1 if a promise was broken in any.

    Each broken one leaves a file behind, and the command that tells it again is printed.
    """
    if trace:
        report = story.tell(plan.draw(scenario, seed), keeps_trace=True)
        print("\n".join(report.trace or []))
    began = time.perf_counter()
    numbers = range(seed, seed + count)
    total = seeds.tally(
        seeds.run(scenario, numbers, jobs=jobs), lambda one: _say(one, scenario, out)
    )
    _summarise(total, scenario, time.perf_counter() - began)
    sys.exit(1 if total.broken else 0)


def _say(outcome: Outcome, scenario: Scenario, out: Path) -> None:
    """A broken promise at once, with how to see it again."""
    if outcome.is_fine:
        return
    if outcome.crash:
        print(f"seed {outcome.seed}: the story fell over\n{outcome.crash}")
        print(f"again: python -m simulations run --scenario {scenario.name} --seed {outcome.seed}")
        return
    report = story.tell(plan.draw(scenario, outcome.seed))
    path = out / f"{scenario.name}-{outcome.seed}.json"
    artefacts.save(report, path)
    print(f"seed {outcome.seed}: {outcome.violation}")
    print(f"replay: python -m simulations replay {path}")


def _summarise(total: Tally, scenario: Scenario, wall_s: float) -> None:
    ends = ", ".join(f"{count} {end}" for end, count in sorted(total.ends.items())) or "no tasks"
    print(
        f"{scenario.name}: {total.outcomes} seeds, {len(total.broken)} broken; "
        f"{total.virtual_s / 3600:.1f} h of the mesh in {wall_s:.1f} s "
        f"({total.cpu_s / max(total.outcomes, 1):.2f} CPU s a seed)"
    )
    print(f"tasks: {ends}{_times(total.task_s)}")
    if total.cells_visible:
        print(
            f"cells begun for each that is visible: {total.cells_begun / total.cells_visible:.3f}"
        )
    print(f"faults: {_counted(total.fired) or 'none'}")
    print(f"looked at: {_counted(total.evaluated)}")


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def _times(task_s: list[float]) -> str:
    if len(task_s) < 2:
        return ""
    cuts = quantiles(task_s, n=100)
    return f"; p50 {cuts[49]:.2f} s, p99 {cuts[98]:.2f} s"


# --- one story again ----------------------------------------------------------------------------


def _artefact(_context: click.Context, _parameter: click.Parameter, path: Path) -> Artefact:
    try:
        return artefacts.load(path)
    except (OSError, ValueError) as wrong:
        raise click.BadParameter(str(wrong)) from wrong


artefact_argument = click.argument(
    "artefact", type=click.Path(path_type=Path), callback=_artefact, metavar="FILE"
)


@main.command()
@artefact_argument
@click.option("--trace", is_flag=True, help="Print all that happened, not the last of it.")
def replay(artefact: Artefact, *, trace: bool) -> None:
    """Tell a story from its file again: it must come out the same, to the last byte.

    Exit code 1 if its promise is still broken, 3 if it comes out otherwise.
    """
    report = story.tell(artefact.plan, keeps_trace=trace)
    print("\n".join(report.trace or report.events[-EVENTS_SHOWN:]))
    _describe(report)
    if report.trace_hash != artefact.trace_hash:
        print(
            f"trace {report.trace_hash}, the file has {artefact.trace_hash}, made at commit "
            f"{artefact.commit}; this is {artefacts.commit()}"
        )
        sys.exit(1 if report.violation else 3)
    sys.exit(1 if report.violation else 0)


def _describe(report: Report) -> None:
    print(f"trace {report.trace_hash}, {report.lasted_s:.1f} s of the mesh")
    for fault in report.plan.faults:
        print(f"  fault {fault}")
    for ask in report.plan.asks:
        print(f"  {ask.at_s:7.2f} s {ask.kind} {ask.task} at node {ask.node}")
    print(f"broken: {report.violation}" if report.violation else "no promise was broken")


@main.command()
@artefact_argument
@click.option("--out", type=click.Path(path_type=Path), help="Where the smaller story goes.")
@click.option("--tries", type=click.IntRange(1), default=shrinking.TRIES_MAX, show_default=True)
def shrink(artefact: Artefact, out: Path | None, tries: int) -> None:
    """Leave out of a broken story what it does not need to break the same promise."""
    broken = artefact.violation
    if broken is None:
        raise click.ClickException("no promise was broken in this story")
    done = 0

    def breaks(smaller: Plan) -> bool:
        nonlocal done
        done += 1
        outcome = seeds.told(smaller)
        still = outcome.violation is not None and outcome.violation.invariant == broken.invariant
        faults, asks = len(smaller.faults), len(smaller.asks)
        click.echo(
            f"try {done}: {faults} faults, {asks} asks: {'broken' if still else 'fine'}", err=True
        )
        return still

    if not breaks(artefact.plan):
        raise click.ClickException(f"it does not break {broken.invariant} any more")
    smaller = shrinking.shrink(artefact.plan, breaks, broken_at_s=broken.at_s, tries_max=tries)
    report = story.tell(smaller)
    path = out or ARTEFACTS / f"{smaller.scenario.name}-{smaller.seed}-small.json"
    artefacts.save(report, path)
    _describe(report)
    print(f"replay: python -m simulations replay {path}")


# --- what stories are worth ---------------------------------------------------------------------


@main.command("mutants")
@click.argument("names", nargs=-1, type=click.Choice(list(mutants.MUTANTS)), metavar="[NAME]...")
@click.option("--jobs", type=click.IntRange(1), default=CORES, show_default=True)
def hunt_mutants(names: tuple[str, ...], jobs: int) -> None:
    """Put known bugs into the code, one at a time; exit code 1 if one survives its seeds."""
    survivors = 0
    try:
        for one in mutants.hunt_all(names or mutants.MUTANTS, jobs=jobs):
            mutant = mutants.MUTANTS[one.name]
            survivors += not one.found
            end = f"died at seed {one.seeds}" if one.found else f"SURVIVED {one.seeds} seeds"
            print(f"{one.name}: {end} of {mutant.scenario} ({one.wall_s:.1f} s): {mutant.about}")
            print(f"    {one.found or 'no checker found anything wrong'}"[:300])
    except StaleMutantError as stale:
        raise click.ClickException(
            f"{stale}; tell simulations/mutants.py what it is now"
        ) from stale
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
