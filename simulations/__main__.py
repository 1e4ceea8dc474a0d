"""`python -m simulations`: stories of seeds, told, told again, and made shorter."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
import traceback
from contextlib import closing
from functools import partial
from math import inf
from pathlib import Path
from statistics import quantiles

import click

from simulations import (
    artefacts,
    campaigns,
    comparing,
    mutants,
    pages,
    plan,
    same_story,
    scale,
    scenarios,
    seeds,
    shrinking,
    speed,
    story,
)
from simulations.artefacts import Artefact
from simulations.campaigns import Campaign
from simulations.mutation import StaleMutantError
from simulations.plan import Plan
from simulations.promises import unproven
from simulations.reports import Report
from simulations.scenarios import Scenario, ScenarioError
from simulations.seeds import Outcome, Tally

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
@click.option("--json", "as_json", is_flag=True, help="Print the numbers for programs, last.")
@click.option("--out", type=click.Path(path_type=Path), default=ARTEFACTS, show_default=True)
def run_seeds(
    scenario: Scenario, seed: int, count: int, jobs: int, *, trace: bool, as_json: bool, out: Path
) -> None:
    """Tell the stories of seeds; exit code 1 if a promise was broken in any.

    Each broken one leaves a file behind, and the command that tells it again is printed.
    """
    if trace:
        report = seeds.tell(plan.draw(scenario, seed), keeps_trace=True)
        print("\n".join(report.trace or []))
    began = time.perf_counter()
    numbers = range(seed, seed + count)
    total = seeds.tally(
        seeds.run(scenario, numbers, jobs=jobs), partial(_say, scenario=scenario, out=out)
    )
    _summarise(total, scenario, time.perf_counter() - began)
    if as_json:
        print(json.dumps(comparing.numbers(total)))
    sys.exit(1 if total.broken else 0)


@main.command("campaign")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="The first.")
@click.option("--seeds", "count", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--jobs", type=click.IntRange(1), default=CORES, show_default=True)
@click.option("--minutes", type=click.FloatRange(0.0), help="Stop after so long; go on next time.")
@click.option("--out", type=click.Path(path_type=Path), default=ARTEFACTS, show_default=True)
def run_campaign(seed: int, count: int, jobs: int, minutes: float | None, out: Path) -> None:
    """Tell stories of all scenarios, as many of each as its share says; exit code as `run`.

    What was told is kept in campaign.jsonl; the next run of the same code goes on from there.
    """
    began = time.perf_counter()
    stop_at = inf if minutes is None else began + 60 * minutes
    campaign = Campaign.read(out / "campaign.jsonl", artefacts.commit())
    known = {name: scenarios.load(name) for name in scenarios.names()}
    stories = campaigns.schedule(count, seed)
    left = campaign.left(stories)
    print(f"{len(stories) - len(left)} of {len(stories)} stories were told before", flush=True)
    told, given = 0, [(known[name], number) for name, number in left]
    with closing(seeds.run_all(given, jobs=jobs)) as outcomes:
        for name, outcome in outcomes if given else ():
            told += 1
            campaign.add(name, outcome)
            _say(outcome, known[name], out)
            if time.perf_counter() >= stop_at:
                break
    wall_s = time.perf_counter() - began
    print(campaigns.table(campaign))
    _shout(campaign.unproven(known))
    print(f"{told} stories in {wall_s:.0f} s with {jobs} jobs: {told / wall_s:.2f} a second")
    sys.exit(1 if any(not one.is_fine for one in campaign.told.values()) else 0)


def _say(outcome: Outcome, scenario: Scenario, out: Path) -> None:
    """A broken promise at once, with how to see it again."""
    if outcome.is_fine:
        return
    path = out / f"{scenario.name.replace('/', '-')}-{outcome.seed}.json"
    if outcome.crash:
        artefacts.save(Report(plan.draw(scenario, outcome.seed)), path, crash=outcome.crash)
        print(f"seed {outcome.seed}: the story fell over\n{outcome.crash}")
    else:
        artefacts.save(seeds.tell(plan.draw(scenario, outcome.seed)), path)
        print(f"seed {outcome.seed}: {outcome.violation}")
    print(f"replay: {_command('replay', path)}")


def _command(what: str, path: Path) -> str:
    """To be pasted into a shell, here: with this Python, whatever is in the path."""
    python, here = Path(sys.executable), Path.cwd()
    near = python.relative_to(here) if python.is_relative_to(here) else python
    return shlex.join([str(near), "-m", "simulations", what, str(path)])


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
    _shout(unproven([scenario], total.fired, total.evaluated))


def _shout(lines: list[str]) -> None:
    for line in lines:
        click.secho(line, fg="red", bold=True)


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
    try:
        report = seeds.tell(artefact.plan, keeps_trace=trace)
    except (Exception, BaseExceptionGroup) as fallen:  # noqa: BLE001 as it did when it was told
        print("".join(traceback.format_exception(fallen)))
        print("the story fell over")
        sys.exit(1)
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
        fell = "it fell over, which is not shrunk" if artefact.crash else "no promise was broken"
        raise click.ClickException(f"in this story {fell}")
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
    report = seeds.tell(smaller)
    path = out or ARTEFACTS / f"{smaller.scenario.name}-{smaller.seed}-small.json"
    artefacts.save(report, path)
    _describe(report)
    print(f"replay: {_command('replay', path)}")


@main.command("report")
@scenario_option
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Where the page goes.")
def write_report(scenario: Scenario, seed: int, out: Path | None) -> None:
    """Write a page to look at: who was up and believed gone when, terms, load, times."""
    if scenario.tier == "B":
        raise click.UsageError("a story of thousands has no page; see `scale`, or `run --trace`")
    told = story.tell(plan.draw(scenario, seed), keeps_timeline=True)
    path = out or ARTEFACTS / f"{scenario.name}-{seed}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(pages.page(told), encoding="utf-8")
    print(f"{path}: {told.violation or 'no promise was broken'}")
    sys.exit(1 if told.violation else 0)


# --- the simulator itself -----------------------------------------------------------------------


@main.command()
@click.option("--nodes", type=click.IntRange(2), default=(3, 10, 50), multiple=True)
@click.option("--minutes", type=click.FloatRange(0.1), default=1.0, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--calm", is_flag=True, help="Without faults.")
def bench(nodes: tuple[int, ...], minutes: float, seed: int, *, calm: bool) -> None:
    """Measure the simulator: so many real nodes for so many virtual minutes."""
    print(
        "nodes  virtual s   wall s    CPU s  messages/s  tasks  virtual h/minute"
        "  gossip kB/s  streams kB/s"
    )
    for count in nodes:
        one, told = speed.measure(speed.lab(count, 60 * minutes, has_faults=not calm), seed)
        print(
            f"{one.nodes:5}  {one.virtual_s:9.1f}  {one.wall_s:7.1f}  {one.cpu_s:7.1f}  "
            f"{one.messages / one.cpu_s:10.0f}  {one.tasks:5}  "
            f"{one.virtual_h_per_minute:16.2f}  {one.gossip_heard_kb_s:11.2f}  "
            f"{one.streams_kb_s:12.2f}"
        )
        if told.violation:
            raise click.ClickException(str(told.violation))


@main.command()
@click.argument("commit")
@scenario_option
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="The first.")
@click.option("--seeds", "count", type=click.IntRange(1), default=20, show_default=True)
@click.option("--jobs", type=click.IntRange(1), default=CORES, show_default=True)
def compare(commit: str, scenario: Scenario, seed: int, count: int, jobs: int) -> None:
    """Run the same seeds with the code of another COMMIT, and show both side by side."""
    if scenario.name not in scenarios.names():
        raise click.UsageError("only the scenarios in simulations/scenarios can be compared")
    arguments = f"--scenario {scenario.name} --seed {seed} --seeds {count} --jobs {jobs}"
    try:
        theirs = comparing.elsewhere(commit, arguments.split())
    except comparing.CompareError as wrong:
        raise click.ClickException(f"{commit}: {wrong}") from wrong
    ours = comparing.numbers(seeds.tally(seeds.run(scenario, range(seed, seed + count), jobs=jobs)))
    print(comparing.table(commit[:12], theirs, ours))
    sys.exit(1 if ours["broken"] > theirs.get("broken", 0) else 0)


@main.command("same-story")
@click.option("--seeds", "count", type=click.IntRange(1), default=20, show_default=True)
@click.option(
    "--python",
    "pythons",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=(Path(sys.executable),),
    help="An interpreter that can tell stories; again for more. The first is asked three times.",
)
def tell_everywhere(count: int, pythons: tuple[Path, ...]) -> None:
    """Tell the same seeds by other interpreters, with other hashes: exit code 1 if one differs."""
    wanted = same_story.stories(count)
    told: dict[str, dict[str, str]] = {}
    for teller in same_story.tellers(path.absolute() for path in pythons):
        began = time.perf_counter()
        try:
            told[str(teller)] = teller.hashes(wanted)
        except subprocess.CalledProcessError as failed:
            raise click.ClickException(f"{teller}: {failed.stderr.strip()}") from failed
        print(f"{teller}: {count} stories in {time.perf_counter() - began:.0f} s", flush=True)
    found = same_story.differences(told)
    print("\n".join(found) or f"all {len(told)} tell the same")
    sys.exit(1 if found else 0)


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


main.add_command(scale.scale)

if __name__ == "__main__":
    main()
