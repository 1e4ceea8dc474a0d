"""exo's state in the shapes of its versions, and in none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.backends import exo_state
from kowalski.node.backends.exo_state import Instance
from kowalski.node.backends.seam import BackendError, ModelInfo

STATE: dict[str, Any] = json.loads(
    (Path(__file__).parent / "recordings" / "exo-state.json").read_text()
)
MODEL = "mlx-community/Llama-3.2-1B-Instruct-4bit"


def instance(**runners: object) -> Instance:
    """The instance of the recording, its two runners in these states."""
    ids = ("2756", "9249")
    states = dict(zip(ids, runners.values(), strict=True))
    (found,) = exo_state.instances(STATE["instances"], states)
    return found


def test_an_instance_tells_its_model_its_devices_and_how_it_is_split() -> None:
    (found,) = exo_state.instances(STATE["instances"], STATE["runners"])
    assert (found.id, found.model, found.sharding) == ("c943", MODEL, "pipeline")
    assert found.devices == ("da00", "fe8e")
    assert [runner.id for runner in found.runners] == ["2756", "9249"]
    assert found.card == ModelInfo(
        MODEL, 131072, size_bytes=729808896, capabilities=("chat", "tools")
    )


READY = {"RunnerReady": {"prefillServerPort": None}}
RUNNING = {"RunnerRunning": {}}
LOADING = {"RunnerLoading": {"layersLoaded": 4, "totalLayers": 16}}
FAILED = {"RunnerFailed": {"errorMessage": 'Traceback\n  File "/x"\nMemoryError: too big'}}


@pytest.mark.parametrize(
    ("one", "other", "readiness", "words"),
    [
        (READY, READY, "ready", "2 Ready"),
        (READY, RUNNING, "ready", "1 Ready, 1 Running"),
        (READY, LOADING, "coming", "1 Ready, 1 Loading"),
        (LOADING, FAILED, "failed", "1 Loading, 1 Failed: MemoryError: too big"),
        (READY, {"RunnerShutdown": {}}, "failed", "1 Ready, 1 Shutdown"),
        ("RunnerReady", "RunnerReady", "ready", "2 Ready"),
        (READY, None, "coming", "1 Ready, 1 Unknown"),
        (READY, {"a": 1, "b": 2}, "coming", "1 Ready, 1 Unknown"),
        (READY, {"RunnerDreaming": {}}, "coming", "1 Ready, 1 Dreaming"),
    ],
)
def test_an_instance_is_what_its_runners_are(
    one: object, other: object, readiness: str, words: str
) -> None:
    found = instance(one=one, other=other)
    assert (found.readiness, found.explain()) == (readiness, words)


def test_loading_has_a_progress() -> None:
    assert instance(one=LOADING, other=READY).runners[0].progress == 0.25


def test_only_what_is_ready_everywhere_can_be_used_and_two_instances_do_twice_as_much() -> None:
    ready, coming = instance(one=READY, other=READY), instance(one=READY, other=LOADING)
    assert [one.slots for one in exo_state.usable((ready, coming))] == [1]
    assert [one.slots for one in exo_state.usable((ready, ready))] == [2]
    assert exo_state.usable((coming,)) == ()
    assert all(one.is_warm for one in exo_state.usable((ready,)))


def test_the_catalogue_is_what_could_be_loaded() -> None:
    entries = [
        {"id": "a", "context_length": 8192, "storage_size_megabytes": 2, "capabilities": ["text"]},
        {"id": "b", "tasks": ["TextToImage"]},
        {"id": "c", "tasks": ["TextGeneration"], "capabilities": ["text", "vision", "thinking"]},
        {"id": 3},
        "x",
    ]
    assert exo_state.catalogue({"data": entries}) == (
        ModelInfo("a", 8192, size_bytes=2 * 1024 * 1024, capabilities=("chat", "tools")),
        ModelInfo("c", capabilities=("chat", "tools", "vision", "thinking")),
    )
    with pytest.raises(BackendError, match="no list of models"):
        exo_state.catalogue({"data": 3})


@pytest.mark.parametrize(
    "nodes", [["57a8", "da00"], [{"nodeId": "57a8"}, {"nodeId": "da00", "profile": {}}]]
)
def test_who_takes_part_is_told_by_the_topology_in_both_of_its_forms(nodes: object) -> None:
    present = exo_state.devices({"nodes": nodes, "connections": {}})
    assert present == ("57a8", "da00")
    # The dead stay in the memory table.
    assert exo_state.free_bytes(STATE["nodeMemory"], (*present, "unknown")) == {"57a8": 22556655616}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "i",
                    "MlxRingInstance",
                    "shardAssignments",
                    "modelId",
                    "runnerToShard",
                    "nodeToRunner",
                    "PipelineShardMetadata",
                    "modelCard",
                    "nodes",
                    "ramAvailable",
                    "inBytes",
                    "r",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=20,
)


@given(json_values, json_values)
def test_no_state_does_harm(one: object, other: object) -> None:
    exo_state.usable(exo_state.instances(one, other))
    exo_state.free_bytes(one, exo_state.devices(other))


@given(json_values)
def test_what_is_swapped_inside_a_real_state_does_no_harm(value: object) -> None:
    for key in ("instances", "runners"):
        broken = {**STATE, key: value}
        exo_state.usable(exo_state.instances(broken["instances"], broken["runners"]))
