"""Which way to split a model, and whether it came to life."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.backends.exo_state import Instance, Runner
from kowalski.node.backends.seam import ModelInfo
from kowalski.node.core import sharding
from kowalski.node.core.sharding import Coming, GaveUp, Ready, Strategy, Way, choose

GIB = 2**30
FREE = {"a": 64 * GIB, "b": 32 * GIB, "c": 16 * GIB}


def way(kind: Any = "pipeline", link: str = "MlxRing", **gib: int) -> Way:  # noqa: ANN401 a word
    sizes = {device: size * GIB for device, size in gib.items()}
    return Way(kind, link, sizes, len(sizes))


WHOLE = way(a=40)
HALVES = way(a=20, b=20)
THIRDS = way(a=14, b=13, c=13)
TENSOR = way("tensor", a=20, b=20)
RDMA = way("tensor", "MlxJaccl", a=20, b=20)


@pytest.mark.parametrize(
    ("ways", "strategy", "chosen"),
    [
        ((THIRDS, HALVES, WHOLE), "auto", WHOLE),
        ((THIRDS, HALVES), "auto", HALVES),
        ((TENSOR, HALVES), "auto", HALVES),
        ((HALVES, RDMA, TENSOR), "auto", HALVES),
        ((TENSOR, RDMA), "auto", RDMA),
        ((HALVES, TENSOR, RDMA), "tensor", RDMA),
        ((HALVES, RDMA), "pipeline", HALVES),
        ((way(a=30, b=10), way(a=10, b=30)), "auto", way(a=30, b=10)),
    ],
)
def test_the_fewest_devices_then_what_suits_their_link_then_the_most_memory_left(
    ways: tuple[Way, ...],
    strategy: Strategy,
    chosen: Way,
) -> None:
    found = choose(ways, strategy, FREE)
    assert found.way == chosen
    assert found.why


def test_rdma_and_pipeline_are_equals_where_each_suits_its_link() -> None:
    assert choose((RDMA, HALVES), "auto", FREE).way in (RDMA, HALVES)


def test_what_does_not_fit_is_not_chosen_and_said() -> None:
    found = choose((way(c=40), HALVES), "auto", FREE)
    assert found.way == HALVES
    nothing = choose((way(c=40), way("tensor", b=33, c=1)), "auto", FREE)
    assert nothing.way is None
    assert "40.0 GiB on a device with 16.0 free" in nothing.why
    assert "33.0 GiB on a device with 32.0 free" in nothing.why


def test_a_device_whose_memory_is_not_told_is_believed() -> None:
    assert choose((way(x=400),), "auto", FREE).way == way(x=400)


def test_more_devices_can_be_asked_for() -> None:
    assert choose((WHOLE, HALVES, THIRDS), "auto", FREE, devices_min=3).way == THIRDS
    few = choose((WHOLE,), "auto", FREE, devices_min=2)
    assert (few.way, few.why) == (
        None,
        "pipeline over MlxRing: 1 devices, 2 were asked for",
    )


def test_exos_own_refusals_are_passed_on() -> None:
    broken = Way("tensor", "MlxRing", {}, 0, "model does not support tensor sharding")
    assert "does not support tensor" in choose((broken,), "tensor", FREE).why
    assert choose((broken,), "pipeline", FREE).why == "exo offers no pipeline way"
    assert choose((), "auto", FREE).why == "exo knows no way to split this model"


def test_the_choice_is_explained() -> None:
    assert choose((HALVES, THIRDS), "auto", FREE).why == (
        "split by layers over 2 devices (pipeline), over MlxRing, up to 20.0 GiB on one; "
        "of 2 ways, because the fewest devices that hold it"
    )
    assert "tensor was asked for" in choose((HALVES, TENSOR), "tensor", FREE).why
    assert "whole on one device" in choose((WHOLE,), "auto", FREE).why


@given(
    st.lists(
        st.builds(
            way,
            st.sampled_from(["pipeline", "tensor"]),
            st.sampled_from(["MlxRing", "MlxJaccl"]),
            a=st.integers(1, 99),
            b=st.integers(1, 99),
        ),
        max_size=6,
    )
)
def test_what_is_chosen_fits_or_nothing_is(ways: list[Way]) -> None:
    found = choose(ways, "auto", FREE)
    fitting = [
        one for one in ways if all(size <= FREE[d] for d, size in one.bytes_by_device.items())
    ]
    assert (found.way is not None) == bool(fitting)
    assert found.way is None or found.way in fitting


# --- watching -----------------------------------------------------------------------------------


def instance(name: str = "i", *states: str, progress: float = 0.0) -> Instance:
    readiness: dict[str, Any] = {"Ready": "ready", "Failed": "failed"}
    runners = tuple(
        Runner(str(n), f"Runner{state}", readiness.get(state, "coming"), "", progress)
        for n, state in enumerate(states)
    )
    return Instance(name, "m", "pipeline", ("a", "b"), runners, ModelInfo("m"))


def test_an_instance_that_comes_up_is_ready_and_tells_how_far_it_is() -> None:
    watch = sharding.begin("m", [instance("old", "Ready")], 0.0)
    watch, verdict = sharding.look(watch, [instance("old", "Ready")], 1.0)
    assert verdict == Coming("waiting for exo to place it", 0.0)
    coming = instance("new", "Loading", "Idle", progress=0.5)
    watch, verdict = sharding.look(watch, [instance("old", "Ready"), coming], 2.0)
    assert verdict == Coming("1 Loading, 1 Idle", 0.5)
    half = instance("new", "Ready", "Loading", progress=0.5)
    watch, verdict = sharding.look(watch, [half], 3.0, downloaded="1 of 2 GiB downloaded")
    assert verdict == Coming("1 Ready, 1 Loading, 1 of 2 GiB downloaded", 0.75)
    _, verdict = sharding.look(watch, [instance("new", "Ready", "Ready")], 4.0)
    assert verdict == Ready("new")


def test_a_command_that_exo_dropped_is_found_out() -> None:
    watch = sharding.begin("m", [], 0.0)
    watch, verdict = sharding.look(watch, [], sharding.APPEAR_S - 0.1)
    assert isinstance(verdict, Coming)
    _, verdict = sharding.look(watch, [], sharding.APPEAR_S)
    assert isinstance(verdict, GaveUp)
    assert "placed nothing" in verdict.why


def test_runners_that_stay_failed_are_given_up_and_ones_that_are_started_again_are_not() -> None:
    watch = sharding.begin("m", [], 0.0)
    watch, verdict = sharding.look(watch, [instance("i", "Failed", "Ready")], 1.0)
    assert isinstance(verdict, Coming)
    watch, verdict = sharding.look(watch, [instance("i", "Loading", "Ready")], 5.0)
    watch, verdict = sharding.look(watch, [instance("i", "Failed", "Ready")], 14.0)
    assert isinstance(verdict, Coming)
    _, verdict = sharding.look(watch, [instance("i", "Failed", "Ready")], 14.0 + 15.0)
    assert isinstance(verdict, GaveUp)
    assert (verdict.instance, verdict.why) == ("i", "its runners failed: 1 Failed, 1 Ready")


def test_one_that_stands_still_is_given_up_but_not_while_bytes_come() -> None:
    loading = [instance("i", "Loading", progress=0.25)]
    watch = sharding.begin("m", [], 0.0)
    watch, _ = sharding.look(watch, loading, 1.0)
    watch, verdict = sharding.look(watch, loading, 200.0, downloaded="1 of 2 GiB downloaded")
    watch, verdict = sharding.look(watch, loading, 450.0, downloaded="1 of 2 GiB downloaded")
    assert isinstance(verdict, Coming)
    _, verdict = sharding.look(watch, loading, 500.0, downloaded="1 of 2 GiB downloaded")
    assert isinstance(verdict, GaveUp)
    assert "nothing moved for 300 s" in verdict.why


def test_one_that_somebody_took_down_is_not_waited_for() -> None:
    watch = sharding.begin("m", [], 0.0)
    watch, _ = sharding.look(watch, [instance("i", "Loading")], 1.0)
    _, verdict = sharding.look(watch, [instance("other", "Ready")], 2.0)
    assert verdict == GaveUp("exo took the instance down", None)
