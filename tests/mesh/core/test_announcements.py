from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core.announcements import (
    UNHURRIED,
    Params,
    has_moved,
    hot_due_at,
    stretched,
)
from kowalski.protocol.messages.telemetry import (
    Battery,
    Condition,
    GpuUse,
    Hot,
    Occupancy,
    Pressure,
)

PARAMS = Params()
DEVICE = Condition(
    swap_used=0.0,
    battery=Battery(charge=0.5, is_plugged=False),
    pressure=Pressure(cpu=0.0, memory=0.0, io=0.0),
    gpus=(GpuUse(busy=0.0),),
)
STILL = Hot(
    condition=DEVICE,
    repl=Occupancy(running=1, slots=4),
    memory_used=0.5,
    cpu_used=0.5,
    tokens_per_s={"small": 100.0},
)


def changed(**update: object) -> Condition:
    return DEVICE.model_copy(update=update)


def test_who_has_said_nothing_yet_speaks_at_once() -> None:
    assert hot_due_at(PARAMS, None, STILL, 100.0) == -inf


def test_what_stands_still_is_said_every_five_seconds() -> None:
    assert hot_due_at(PARAMS, STILL, STILL, 100.0) == 105.0


def test_what_moved_is_said_a_second_after_the_last_word() -> None:
    moved = STILL.model_copy(update={"cpu_used": 0.75})
    assert hot_due_at(PARAMS, STILL, moved, 100.0) == 101.0


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"memory_used": 0.625}, True),
        ({"memory_used": 0.5625}, False),
        ({"cpu_used": 0.375}, True),
        ({"cpu_used": 0.4375}, False),
        ({"repl": Occupancy(running=2, slots=4)}, True),
        ({"repl": Occupancy(running=1, queued=1, slots=4)}, True),
        ({"repl": Occupancy(running=1, slots=5)}, False),
        ({"inference": Occupancy(running=1, slots=8)}, True),
        ({"folding": Occupancy(queued=1, slots=1)}, True),
        ({"tokens_per_s": {"small": 111.0}}, False),
        ({"tokens_per_s": {"small": 112.0}}, True),
        ({"tokens_per_s": {"small": 89.0}}, True),
        ({"tokens_per_s": {}}, True),
        ({"is_draining": True}, True),
        ({"condition": DEVICE}, False),
        ({"condition": changed(swap_used=0.125)}, True),
        ({"condition": changed(battery=None)}, True),
        ({"condition": changed(battery=Battery(charge=0.5, is_plugged=True))}, True),
        ({"condition": changed(battery=Battery(charge=0.375, is_plugged=False))}, True),
        ({"condition": changed(pressure=Pressure(memory=0.5))}, True),
        ({"condition": changed(pressure=Pressure(cpu=0.5))}, False),
        ({"condition": changed(gpus=())}, True),
        ({"condition": changed(gpus=(GpuUse(busy=0.5),))}, True),
        ({"condition": changed(gpus=(GpuUse(busy=0.0625),))}, False),
        ({"condition": changed(temperature_c=90.0, disk_free_bytes=7)}, False),
        ({"tokens_per_s": {"small": 100.0, "large": 0.0}}, True),
    ],
)
def test_a_tenth_of_the_range_or_of_the_value_is_a_move(
    change: dict[str, object], moved: bool
) -> None:
    assert has_moved(PARAMS, STILL, STILL.model_copy(update=change)) is moved


@given(st.integers(1, UNHURRIED))
def test_a_small_mesh_speaks_as_it_always_did(size: int) -> None:
    assert stretched(PARAMS, size) == PARAMS


@given(st.integers(1, 100_000))
def test_nobody_hears_more_in_a_second_than_in_a_small_mesh(size: int) -> None:
    params = stretched(PARAMS, size)
    for heard, usual in (
        (params.hot_s_min, PARAMS.hot_s_min),
        (params.hot_s_max, PARAMS.hot_s_max),
        (params.profile_s, PARAMS.profile_s),
    ):
        assert size / heard <= UNHURRIED / usual * (1 + 1e-9)


@given(st.integers(1, 10_000), st.integers(0, 10_000))
def test_the_larger_the_mesh_the_longer_each_waits(size: int, more: int) -> None:
    one, other = stretched(PARAMS, size), stretched(PARAMS, size + more)
    assert other.hot_s_max >= one.hot_s_max
    assert other.hot_s_min >= one.hot_s_min
    assert other.hot_s_min <= other.hot_s_max <= other.profile_s


@pytest.mark.parametrize("change", [{"paused": "on battery"}, {"is_draining": True}])
def test_that_no_work_is_taken_any_more_waits_for_no_large_mesh(change: dict[str, object]) -> None:
    otherwise = STILL.model_copy(update=change)
    assert hot_due_at(stretched(PARAMS, 1000), STILL, otherwise, 100.0) == 101.0
    moved = STILL.model_copy(update={"cpu_used": 0.75})
    assert hot_due_at(stretched(PARAMS, 1000), STILL, moved, 100.0) == 120.0
