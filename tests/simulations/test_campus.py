"""Tier B: a hundred nodes as cores, a few minutes; `make simulate-scale` has a thousand."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from kowalski.mesh.core import announcements
from kowalski.mesh.core.failure_detector_state import Params
from kowalski.mesh.core.suspicion import Params as SuspicionParams
from simulations import campus, plan, scenarios
from simulations.campus import CampusReport, Tuning
from simulations.menu import Fault
from simulations.plan import Plan

KINDS = ("crash", "power-cut", "lost", "freeze", "isolate", "slow-worker", "lies-idle")


def small(
    seed: int, *, nodes: int = 50, seconds: float = 40.0, settle_s: float = 80.0, loss: float = 0.0
) -> Plan:
    """A campus of a few, with as much work for each of them and more trouble."""
    whole = scenarios.load("campus")
    assert whole.faults is not None
    devices = tuple(
        one.model_copy(update={"count": round(one.count * nodes / whole.nodes)})
        for one in whole.devices
    )
    changes = {
        "devices": devices,
        "seconds": seconds,
        "settle_s": settle_s,
        "work": whole.work.model_copy(update={"every_s": 0.4, "cell_s_max": 8.0}),
        "faults": whole.faults.model_copy(
            update={"every_s": 6.0, "lasts_s_max": 20.0, "kinds": KINDS}
        ),
        "network": whole.network.model_copy(update={"packet_loss": loss}),
    }
    return plan.draw(whole.model_copy(update=changes), seed)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_campus_in_trouble_keeps_its_promises(seed: int) -> None:
    report = campus.tell(small(seed))
    assert report.violation is None
    assert report.ends["completed"] > 60
    assert report.ends["failed"] == 0
    assert sum(report.fired.values()) > 2
    for promise in ("membership_monotone", "views_converge", "no_ghosts", "nobody_starves"):
        assert report.evaluated[promise]


def test_the_campus_of_a_thousand_is_one() -> None:
    assert scenarios.load("campus").nodes == 1000
    assert scenarios.load("campus").tier == "B"


def found(tuning: Tuning, told: Plan) -> str:
    violation = campus.tell(told, tuning).violation
    return violation.invariant if violation else "nothing"


def test_telemetry_that_does_not_slow_down_is_found() -> None:
    everybody_at_once = replace(announcements.Params(), hot_s_max=1.0)
    tuning = Tuning(telemetry=lambda _size: everybody_at_once)
    assert (
        found(tuning, small(1, nodes=120, seconds=5.0, settle_s=55.0)) == "telemetry_within_budget"
    )


def test_workers_that_lose_their_work_are_found() -> None:
    told = small(1, nodes=20, seconds=5.0, settle_s=20.0).without(frozenset(range(100)))
    assert found(Tuning(forgets_work=True), told) == "nobody_starves"


def test_verdicts_without_patience_are_found() -> None:
    hasty = SuspicionParams(multiplier=0.01, max_multiplier=1.0)
    params = Params(suspicion=hasty, timeout_s=0.05, members_max=campus.MEMBERS_MAX)
    told = small(1, nodes=12, seconds=10.0, settle_s=5.0, loss=0.4).without(frozenset(range(100)))
    assert found(Tuning(detector=params), told) == "nobody_is_given_up_for_nothing"


def test_detectors_that_probe_nobody_are_found() -> None:
    never = Params(interval_s=1e9, large_interval_s=1e9, members_max=campus.MEMBERS_MAX)
    told = small(1, nodes=20, settle_s=40.0)
    told = replace(told, faults=(Fault("lost", 5.0, 1.0, (3,), 0.0),))
    assert found(Tuning(detector=never), told) == "no_ghosts"


def told_again() -> CampusReport:
    return campus.tell(small(4, nodes=20, seconds=20.0, settle_s=20.0))


def test_the_same_seed_is_the_same_story_in_every_process() -> None:
    here = told_again().trace_hash
    words = "from tests.simulations.test_campus import told_again; print(told_again().trace_hash)"
    for hash_seed in ("4711",):
        told = subprocess.run(
            [sys.executable, "-c", words],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        assert told.stdout.strip() == here
    assert campus.tell(small(5, nodes=20, seconds=20.0, settle_s=20.0)).trace_hash != here
