"""Stories leave nothing behind in the process that tells them: ten thousand of them are told."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from simulations import plan, seeds
from simulations.menu import Fault
from simulations.plan import Plan
from simulations.scenarios import Faults, load
from simulations.seeds import Outcome
from simulations.world import folders_left

SHORT = load("trouble").model_copy(update={"seconds": 4.0, "faults": Faults(every_s=1.5)})
DETACHED = load("detached").model_copy(update={"seconds": 4.0})
OPEN = Path("/proc/self/fd")


def told_well() -> list[Plan]:
    return [plan.draw(SHORT, seed) for seed in range(1, 5)] + [plan.draw(DETACHED, 1)]


def broken() -> list[Plan]:
    """Of which no task can end, and which are cut short for that."""
    (devices,) = SHORT.devices
    slow = (devices.model_copy(update={"token_ms": 50_000.0}),)
    endless = SHORT.model_copy(update={"settle_s": 5.0, "devices": slow})
    return [plan.draw(endless, seed) for seed in range(1, 4)]


def fallen() -> list[Plan]:
    """Which fall over in the middle."""
    at_nobody = Fault("crash", 1.0, 1.0, (), 0.5)
    return [replace(one, faults=(at_nobody,)) for one in told_well()[:3]]


def held() -> Counter[str]:
    """What this process has open: files, by where they lead, threads, and folders of worlds."""
    links = [str(one.readlink()) for one in OPEN.iterdir() if one.is_symlink()]
    threads = [one.name for one in threading.enumerate()]
    return Counter([*links, *threads, *map(str, folders_left())])


def is_told_well(outcome: Outcome) -> bool:
    return outcome.is_fine


def is_broken(outcome: Outcome) -> bool:
    return outcome.violation is not None


def has_fallen(outcome: Outcome) -> bool:
    return bool(outcome.crash)


@pytest.mark.skipif(not OPEN.is_dir(), reason="counts open files in /proc")
@pytest.mark.parametrize(
    ("plans", "is_as_meant"),
    [(told_well(), is_told_well), (broken(), is_broken), (fallen(), has_fallen)],
    ids=["told well", "broken", "fallen over"],
)
def test_no_files_threads_or_folders_are_left_of_them(
    plans: list[Plan], is_as_meant: Callable[[Outcome], bool]
) -> None:
    seeds.told(plans[0])  # what is opened once, is
    before = held()
    assert any([is_as_meant(seeds.told(one)) for one in plans]), "all of them are told"  # noqa: C419
    new = held() - before  # what tests before this one had left may go meanwhile
    assert not new
