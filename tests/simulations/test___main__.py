"""The command line of the simulations."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from simulations import artefacts, plan, story
from simulations.__main__ import main
from simulations.menu import Fault
from simulations.mutants import Hunt
from simulations.reports import Report
from simulations.scenarios import load

SHORT = """
about = "a short one"
seconds = 4
work = { every_s = 1.0 }
[[devices]]
count = 3
name = "device"
"""
NO_SPEED = f"{SHORT}token_ms = 50000.0\n"


ROOT = Path(__file__).parents[2]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


@pytest.fixture
def short(tmp_path: Path) -> Path:
    path = tmp_path / "short.toml"
    path.write_text(SHORT)
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """An artefact of a story in which no task ends."""
    path = tmp_path / "slow.toml"
    path.write_text(f"settle_s = 20\n{NO_SPEED}")
    out = tmp_path / "out"
    done = run("run", "--scenario", path, "--seed", 5, "--out", out)
    assert done.exit_code == 1
    assert re.search(r"^seed 5: no_lost_ack: 20 s after everything had healed", done.output)
    assert f" -m simulations replay {out / 'slow-5.json'}" in done.output
    return out / "slow-5.json"


def test_the_command_that_is_printed_works_as_it_stands_in_any_shell(tmp_path: Path) -> None:
    path = tmp_path / "it's slow.toml"
    path.write_text(f"settle_s = 5\n{NO_SPEED}")
    done = run("run", "--scenario", path, "--seed", 5, "--out", tmp_path / "a b")
    (command,) = re.findall(r"^replay: (.+)$", done.output, re.MULTILINE)
    environment = {"PATH": "/usr/bin:/bin"}
    replayed = subprocess.run(
        ["sh", "-c", command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert replayed.returncode == 1, replayed.stderr
    assert "broken: no_lost_ack" in replayed.stdout
    assert "the file has" not in replayed.stdout


def test_a_story_that_fell_over_is_replayed_as_well(short: Path, tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    at_nobody = Fault("crash", 0.1, 1.0, (), 0.5)
    nonsense = replace(plan.draw(load(str(short)), 1), faults=(at_nobody,))
    artefacts.save(Report(nonsense), path, crash="it fell")
    done = run("replay", path)
    assert done.exit_code == 1
    assert "ValueError: not enough values" in done.output
    assert "the story fell over" in done.output
    shrunk = run("shrink", path)
    assert shrunk.exit_code == 1
    assert "it fell over" in shrunk.output


def test_run_tells_how_it_went_in_numbers(short: Path) -> None:
    done = run("run", "--scenario", short, "--seed", 5, "--seeds", 2, "--jobs", 1)
    assert done.exit_code == 0, done.output
    assert "short: 2 seeds, 0 broken" in done.output
    assert re.search(r"^tasks: \d+ answered.*; p50 ", done.output, re.MULTILINE)
    assert re.search(r"^looked at: .*visible_once \d+", done.output, re.MULTILINE)


def test_run_shouts_which_faults_never_fired_and_which_promises_nobody_looked_at() -> None:
    done = run("run", "--scenario", "detached", "--seed", 5, "--jobs", 1)
    assert re.search(r"^NEVER FIRED: \d+ of 9 faults: .*\w", done.output, re.MULTILINE)
    done = run("run", "--scenario", "refusing", "--seed", 1, "--jobs", 1)
    assert "NEVER FIRED" not in done.output


def test_run_with_trace_prints_what_happened(short: Path) -> None:
    done = run("run", "--scenario", short, "--seed", 5, "--trace")
    assert "task/grant" in done.output
    assert "healed" in done.output


def test_a_broken_story_is_replayed_to_the_last_byte(broken: Path) -> None:
    done = run("replay", broken)
    assert done.exit_code == 1
    assert f"trace {artefacts.load(broken).trace_hash}" in done.output
    assert "broken: no_lost_ack" in done.output
    assert "the file has" not in done.output
    assert "task/grant" in run("replay", broken, "--trace").output


def test_a_story_that_comes_out_otherwise_is_3(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    scenario = load("home").model_copy(update={"seconds": 1.0, "faults": None})
    report = story.tell(plan.draw(scenario, 1))
    artefacts.save(report, path)
    assert run("replay", path).exit_code == 0
    path.write_text(path.read_text().replace(report.trace_hash, "0" * 16))
    done = run("replay", path)
    assert done.exit_code == 3
    assert "the file has 0000" in done.output


def test_a_broken_story_is_made_smaller(broken: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.json"
    done = run("shrink", broken, "--out", small, "--tries", 12)
    assert done.exit_code == 0, done.output
    read = artefacts.load(small)
    assert read.plan.faults == ()
    assert len(read.plan.asks) <= len(artefacts.load(broken).plan.asks)
    assert read.violation is not None
    assert run("replay", small).exit_code == 1


def test_run_prints_its_numbers_for_programs_last(short: Path) -> None:
    done = run("run", "--scenario", short, "--seed", 5, "--json")
    assert json.loads(done.output.splitlines()[-1])["broken"] == 0


def test_a_campaign_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    short = load("home").model_copy(update={"seconds": 1.0, "faults": None})
    monkeypatch.setattr("simulations.scenarios.split", lambda seeds: {"home": seeds})
    monkeypatch.setattr("simulations.scenarios.load", lambda _name: short)
    flags = ("--jobs", 1, "--out", tmp_path)
    done = run("campaign", "--seeds", 2, *flags, "--minutes", 0)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("0 of 2 stories were told before")
    assert "| home | 1 | 0 |" in done.output
    done = run("campaign", "--seeds", 2, *flags)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("1 of 2 stories were told before")
    assert "| **all** | 2 | 0 |" in done.output
    assert run("campaign", "--seeds", 2, *flags).output.startswith("2 of 2")


def test_a_report_is_a_page_and_the_verdict_its_exit_code(short: Path, tmp_path: Path) -> None:
    done = run("report", "--scenario", short, "--seed", 5, "--out", tmp_path / "a/page.html")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "a/page.html").read_text().startswith("<!doctype html>")


def test_the_bench_has_a_line_for_each_size() -> None:
    done = run("bench", "--nodes", 2, "--minutes", 0.1, "--calm")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[1].split()[0] == "2"


def test_mutants_that_died_are_told_with_what_found_them() -> None:
    done = run("mutants", "term-not-saved")
    assert done.exit_code == 0, done.output
    assert "term-not-saved: died at seed 1 of " in done.output
    assert "term_is_saved_first: " in done.output


def test_a_mutant_that_survives_is_1(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Hunt("no-fence", "", 60, 1.0)
    monkeypatch.setattr("simulations.mutants.hunt_all", lambda _names, jobs: [gone])
    done = run("mutants", "no-fence")
    assert done.exit_code == 1
    assert "no-fence: SURVIVED 60 seeds" in done.output


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (["run", "--scenario", "nowhere"], "there are "),
        (["run", "--seeds", "0"], "Invalid value for '--seeds'"),
        (["run", "--seed", "-1"], "Invalid value for '--seed'"),
        (["replay", "nowhere.json"], "No such file"),
        (["shrink", "pyproject.toml"], "is no artefact of a simulation"),
        (["replay", "simulations"], "Is a directory"),
        (["run", "--scenario", "README.md"], "Invalid value for '--scenario'"),
        (["report", "--scenario", "nowhere"], "there are "),
        (["bench", "--nodes", "1"], "Invalid value for '--nodes'"),
        (["mutants", "nobody"], "'nobody' is not one of"),
    ],
)
def test_what_makes_no_story_is_refused(bad: list[str], complaint: str) -> None:
    done = run(*bad)
    assert done.exit_code == 2
    assert complaint in done.output
    assert "Traceback" not in done.output
