"""What a node says of itself, from its device, its rooms and its samples."""

from __future__ import annotations

import dataclasses

import pytest
import trio
import trio.testing

from kowalski import __version__
from kowalski.node.services import telemetry
from kowalski.node.services.telemetry import NodeTelemetry
from kowalski.node.telemetry_sources import HotSample
from kowalski.protocol.codec import encode
from kowalski.protocol.ids import Address
from kowalski.protocol.limits import ADDRESSES_MAX
from kowalski.protocol.messages.telemetry import (
    Battery,
    Condition,
    Gpu,
    GpuUse,
    Language,
    Model,
    Occupancy,
    Pressure,
    Profile,
)
from simulations.world import IDLE, PROFILE

pytestmark = pytest.mark.trio

BOOT = "00000000000000b0"


class Sampler:
    """What the device says; counts how often it was asked."""

    def __init__(self, sample: HotSample = IDLE) -> None:
        self.sample = sample
        self.asked_at: list[float] = []

    def __call__(self, now: float) -> HotSample:
        self.asked_at.append(now)
        return self.sample


def made(
    sampler: Sampler | None = None,
    *,
    device: object = PROFILE,
    addresses: tuple[Address, ...] = (Address("/ip4/192.168.1.7/tcp/4170"),),
) -> NodeTelemetry:
    return NodeTelemetry(
        name="me",
        boot=BOOT,
        roles=("submit", "repl"),
        sandbox="bubblewrap",
        device=device,  # type: ignore[arg-type]
        sample=sampler or Sampler(),
        addresses=lambda: addresses,
    )


async def test_a_profile_tells_the_device_and_the_rooms_that_are_open(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node = made()
    assert node.profile(3) == Profile(
        boot=BOOT,
        sequence=3,
        name="me",
        version=__version__,
        roles=("submit", "repl"),
        addresses=(Address("/ip4/192.168.1.7/tcp/4170"),),
        sandbox="bubblewrap",
        cpu=PROFILE.cpu,
        cores=4,
        memory_bytes=8 << 30,
        system="simulation",
        hot=node.hot(),
    )
    node.rooms.languages = lambda: {"python": "3.11", "bash": "5.2"}
    node.rooms.models = lambda: (Model(name="m"),)
    profile = node.profile(4)
    assert profile.languages == (
        Language(name="bash", version="5.2"),
        Language(name="python", version="3.11"),
    )
    assert profile.models == (Model(name="m"),)


async def test_hot_values_are_those_of_the_rooms_now(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node = made()
    assert node.hot().repl == Occupancy()
    node.rooms.repl = lambda: Occupancy(running=1, slots=4)
    node.rooms.inference = lambda: Occupancy(running=2, slots=4)
    node.rooms.folding = lambda: Occupancy(queued=3, slots=4)
    node.rooms.tokens_per_s = lambda: {"m": 12.5}
    hot = node.hot()
    assert (hot.repl.running, hot.inference.running, hot.folding.queued) == (1, 2, 3)
    assert hot.tokens_per_s == {"m": 12.5}
    assert (hot.memory_used, hot.cpu_used) == (0.5, 0.1)
    assert node.profile(0).hot == hot


async def test_the_choice_of_a_peer_looks_at_the_same_values_as_peers_are_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node = made()
    node.rooms.repl = lambda: Occupancy(running=1, slots=4)
    node.rooms.inference = lambda: Occupancy(running=2, slots=4)
    node.rooms.folding = lambda: Occupancy(queued=3, slots=4)
    node.rooms.tokens_per_s = lambda: {"m": 12.5}
    node.rooms.is_draining = lambda: True
    told, own = node.hot(), node.about().hot_for_choice()
    for name in dataclasses.asdict(node.own_hot()):
        assert getattr(own, name) == getattr(told, name), name


async def test_hot_values_are_made_anew_only_when_something_has_changed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node, speeds = made(), {"m": 12.5}
    node.rooms.tokens_per_s = lambda: speeds
    hot = node.hot()
    await trio.sleep(10)
    assert node.hot() is hot
    speeds["m"] = 20.0
    assert node.hot().tokens_per_s == {"m": 20.0}
    node.rooms.is_draining = lambda: True
    assert node.hot().is_draining


async def test_peers_are_told_the_battery_that_pauses_the_node_and_the_rest_of_the_sample(
    autojump_clock: trio.testing.MockClock,
) -> None:
    sampler = Sampler(
        dataclasses.replace(
            IDLE,
            battery=Battery(charge=0.5, is_plugged=False),
            pressure=Pressure(io=0.25),
            temperature_c=70.0,
            disk_free_bytes=1 << 30,
            gpus=(GpuUse(busy=0.5),),
        )
    )
    gpu = Gpu(name="RTX", memory_bytes=8 << 30)
    node = made(sampler, device=dataclasses.replace(PROFILE, gpus=(gpu,), disk_bytes=1 << 40))
    assert node.is_on_battery()
    assert node.hot().condition == Condition(
        swap_used=0.0,
        battery=Battery(charge=0.5, is_plugged=False),
        pressure=Pressure(io=0.25),
        temperature_c=70.0,
        disk_free_bytes=1 << 30,
        gpus=(GpuUse(busy=0.5),),
    )
    assert (node.profile(0).gpus, node.profile(0).disk_bytes) == ((gpu,), 1 << 40)
    sampler.sample = dataclasses.replace(
        sampler.sample, battery=Battery(charge=0.5, is_plugged=True)
    )
    await trio.sleep(telemetry.SAMPLE_S)
    assert not node.is_on_battery(), "also before anybody is told"
    told = node.hot().condition.battery
    assert told is not None
    assert told.is_plugged


async def test_the_device_is_sampled_no_more_often_than_it_changes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    sampler = Sampler()
    node = made(sampler)
    for _ in range(20):
        node.hot()
        await trio.sleep(0.1)
    assert len(sampler.asked_at) == pytest.approx(2 / telemetry.SAMPLE_S, abs=1)
    sampler.sample = dataclasses.replace(IDLE, memory_available=0.25)
    await trio.sleep(telemetry.SAMPLE_S)
    assert node.hot().memory_used == 0.75


async def test_what_the_device_does_not_tell_counts_as_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    silent = dataclasses.replace(IDLE, memory_available=None, cpu_used=None)
    device = dataclasses.replace(PROFILE, memory_bytes=None, cores=0.4)
    node = made(Sampler(silent), device=device)
    hot = node.hot()
    assert (hot.memory_used, hot.cpu_used) == (0.0, 0.0)
    assert (node.profile(0).memory_bytes, node.profile(0).cores) == (0, 1)


async def test_a_device_with_many_addresses_tells_as_many_as_a_message_holds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    many = tuple(Address(f"/ip4/172.17.{n}.1/tcp/4170") for n in range(ADDRESSES_MAX + 4))
    profile = made(addresses=many).profile(0)
    assert profile.addresses == many[:ADDRESSES_MAX]
    encode(profile)


async def test_the_lasting_profile_is_made_anew_only_when_it_would_tell_something_else(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node, languages, models = made(), {"python": "3.11"}, [Model(name="m")]
    node.rooms.languages = lambda: dict(languages)
    node.rooms.models = lambda: tuple(models)
    first = node.lasting()
    node.rooms.repl = lambda: Occupancy(running=1, slots=4)
    assert node.lasting() is first
    languages["bash"] = "5.2"
    assert node.lasting().languages == node.profile(0).languages != first.languages
    models[0] = Model(name="m", is_warm=True)
    assert node.lasting().models == (Model(name="m", is_warm=True),)
    models.clear()
    assert node.lasting().models == ()
