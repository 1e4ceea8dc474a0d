"""What is told of peers, on whole nodes under virtual time."""

from __future__ import annotations

import pytest
import trio

from kowalski.node.peer_rows import condition_of, membership_of, row_of, topology_of
from kowalski.protocol.messages.telemetry import Condition, Gpu, GpuUse, Hot
from simulations.virtual_time import JumpingClock
from simulations.world import UNIX_EPOCH_S, open_world
from tests.protocol.examples import PROFILE

pytestmark = pytest.mark.trio


async def test_the_matrix_fills_with_what_everybody_measured(virtual_time: JumpingClock) -> None:
    async with open_world(3) as world:
        await trio.sleep(30)
        for node in (world[0], world[1], world[2]):
            told = topology_of(node.mesh)
            matrix = told["matrix"]
            assert isinstance(matrix, list)
            assert [row["peer"] for row in matrix] == told["peers"]
            for at, row in enumerate(matrix):
                assert row["rtt_ms"][at] is None, "nobody is any way from itself"
                others = [rtt for to, rtt in enumerate(row["rtt_ms"]) if to != at]
                assert len(others) == 2
                assert all(rtt is not None and rtt >= 0 for rtt in others), row
                assert row["age_s"] <= 61


async def test_a_row_tells_state_age_addresses_load_and_round_trips(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(2) as world:
        await trio.sleep(10)
        mesh = world[0].mesh
        us, other = (row_of(mesh, facts, UNIX_EPOCH_S) for facts in mesh.facts())
        assert (us["is_self"], us["membership"], us["age_s"]) == (True, "alive", 0.0)
        assert (other["is_self"], other["membership"], other["routable"]) == (False, "alive", True)
        assert other["why_not"] == ""
        assert isinstance(other["age_s"], float)
        assert 0 <= other["age_s"] <= 6
        assert isinstance(other["rtt_least_ms"], float)
        assert other["addresses"]
        assert other["loads"] == dict.fromkeys(other["loads"], 0.0)  # type: ignore[attr-defined]
        assert membership_of(mesh)["members"] == {
            "alive": 1, "suspect": 0, "failed": 0, "left": 0,
        }  # fmt: skip


async def test_the_condition_of_a_device_is_told_as_far_as_it_is_known() -> None:
    silent = condition_of(None, None)
    assert silent.pop("gpus") == []
    assert set(silent.values()) == {None}
    told = condition_of(PROFILE, PROFILE.hot)
    assert told["battery"] == {"charge": 0.75, "is_plugged": False}
    assert told["pressure"] == {"cpu": 0.125, "memory": 0.0, "io": 0.5}
    assert (told["disk_bytes"], told["temperature_c"]) == (1_000_204_886_016, 71.5)
    assert told["gpus"] == [
        {
            "name": "NVIDIA GeForce RTX 4090",
            "memory_bytes": 25_757_220_864,
            "used_fraction": 0.5,
            "memory_used_fraction": 0.25,
            "temperature_c": 64.0,
        }
    ]


@pytest.mark.parametrize("uses", [0, 1, 2, 3])
async def test_a_peer_that_tells_of_more_or_fewer_gpus_than_it_has_breaks_nothing(
    uses: int,
) -> None:
    two = PROFILE.model_copy(update={"gpus": (Gpu(name="a"), Gpu(name="b"))})
    hot = Hot(condition=Condition(gpus=(GpuUse(busy=1.0),) * uses))
    gpus = condition_of(two, hot)["gpus"]
    assert isinstance(gpus, list)
    assert [gpu["used_fraction"] for gpu in gpus] == [1.0 if n < uses else None for n in range(2)]


async def test_a_peer_that_says_goodbye_is_told_as_left_and_why_not(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(2) as world:
        await trio.sleep(5)
        await world[1].mesh.leave()
        mesh = world[0].mesh
        assert mesh.state_of(world[1].mesh.me) == "left"
        assert membership_of(mesh)["members"] == {
            "alive": 0, "suspect": 0, "failed": 0, "left": 1,
        }  # fmt: skip
        assert topology_of(mesh)["peers"] == [mesh.me]
