"""What this node says of itself: its device, its rooms and how full they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import trio

from kowalski import __version__
from kowalski.mesh.candidates import OwnHot
from kowalski.mesh.telemetry_gossip import Self
from kowalski.node.gpu_sources import GpuSource
from kowalski.node.telemetry_sources import DeviceProfile, HotSample, HotSource, read_profile
from kowalski.protocol.ids import Address
from kowalski.protocol.limits import ADDRESSES_MAX
from kowalski.protocol.messages.telemetry import (
    Condition,
    Hot,
    Language,
    Model,
    Occupancy,
    Profile,
)
from kowalski.protocol.messages.trust import Role

SAMPLE_S = 1.0
"""A sample costs half a millisecond, a tenth of what an idle node uses at two a second; nothing of
it is gossiped more often than once a second."""


@dataclass(frozen=True, slots=True)
class Device:
    """What a node runs on, and how busy that is at a time of a monotonic clock."""

    profile: DeviceProfile
    sample: Callable[[float], HotSample]


def device_here(data_dir: Path) -> Device:
    """This machine; of its disks, the one that `data_dir` is on."""
    gpus = GpuSource()
    source = HotSource(gpus=gpus, disk=data_dir)
    return Device(read_profile(gpus=gpus, disk=data_dir), source.sample)


@dataclass(slots=True)
class Rooms:
    """What the rooms that are open tell; filled in as they open."""

    languages: Callable[[], dict[str, str]] = dict
    models: Callable[[], tuple[Model, ...]] = tuple
    tokens_per_s: Callable[[], dict[str, float]] = dict
    prompt_tokens_per_s: Callable[[], dict[str, float]] = dict
    repl: Callable[[], Occupancy] = Occupancy
    inference: Callable[[], Occupancy] = Occupancy
    folding: Callable[[], Occupancy] = Occupancy
    is_draining: Callable[[], bool] = bool
    paused: Callable[[], str] = str


class _Told(TypedDict):
    """What a `Hot` is made of: to make one costs more than to see that nothing has changed."""

    repl: Occupancy
    inference: Occupancy
    folding: Occupancy
    memory_used: float
    cpu_used: float
    tokens_per_s: dict[str, float]
    paused: str
    prompt_tokens_per_s: dict[str, float]
    is_draining: bool
    condition: Condition


class NodeTelemetry:
    def __init__(
        self,
        *,
        name: str,
        boot: str,
        roles: tuple[Role, ...],
        sandbox: str,
        device: DeviceProfile,
        sample: Callable[[float], HotSample],
        addresses: Callable[[], tuple[Address, ...]],
    ) -> None:
        self.rooms = Rooms()
        self._name = name
        self._boot = boot
        self._roles = roles
        self._sandbox = sandbox
        self._device = device
        self._take_sample = sample
        self._addresses = addresses
        self._sample = sample(trio.current_time())
        self._sampled_at = trio.current_time()
        self._condition = _condition(self._sample)
        self._lasting: tuple[object, Profile] | None = None
        self._hot: tuple[_Told, Hot] | None = None

    def is_on_battery(self) -> bool:
        """Whether the device has one and is not plugged in, as far as is known."""
        battery = self._now().battery
        return battery is not None and battery.is_plugged is False

    def profile(self, sequence: int) -> Profile:
        device, rooms = self._device, self.rooms
        languages = sorted(rooms.languages().items())
        return Profile(
            boot=self._boot,
            sequence=sequence,
            name=self._name,
            version=__version__,
            roles=self._roles,
            addresses=self._addresses()[:ADDRESSES_MAX],
            sandbox=self._sandbox,
            languages=tuple(Language(name=name, version=version) for name, version in languages),
            models=rooms.models(),
            cpu=device.cpu,
            cores=max(1, round(device.cores)),
            memory_bytes=device.memory_bytes or 0,
            system=device.system,
            hot=self.hot(),
            gpus=device.gpus,
            disk_bytes=device.disk_bytes or 0,
        )

    def lasting(self) -> Profile:
        """The last profile made, as long as languages and models are still the same.

        Its sequence, addresses and hot values are those of when it was made.
        """
        able = self.rooms.languages(), self.rooms.models()
        if self._lasting is None or self._lasting[0] != able:
            self._lasting = able, self.profile(0)
        return self._lasting[1]

    def hot(self) -> Hot:
        """As it is now; the same object as before where nothing has changed."""
        rooms, sample = self.rooms, self._now()
        available, cpu = sample.memory_available, sample.cpu_used
        told = _Told(
            repl=rooms.repl(),
            inference=rooms.inference(),
            folding=rooms.folding(),
            memory_used=0.0 if available is None else 1.0 - available,
            cpu_used=cpu or 0.0,
            tokens_per_s=dict(rooms.tokens_per_s()),
            paused=rooms.paused(),
            prompt_tokens_per_s=dict(rooms.prompt_tokens_per_s()),
            is_draining=rooms.is_draining(),
            condition=self._condition,
        )
        if self._hot is None or told != self._hot[0]:
            self._hot = told, Hot(**told)
        return self._hot[1]

    def own_hot(self) -> OwnHot:
        """As `hot`, of which it is what this node's own choice of a peer looks at."""
        rooms, available = self.rooms, self._now().memory_available
        return OwnHot(
            repl=rooms.repl(),
            inference=rooms.inference(),
            folding=rooms.folding(),
            memory_used=0.0 if available is None else 1.0 - available,
            tokens_per_s=rooms.tokens_per_s(),
            is_draining=rooms.is_draining(),
        )

    def about(self) -> Self:
        """What the mesh is told of this node."""
        return Self(self._name, self._boot, self.profile, self.hot, self.lasting, self.own_hot)

    def _now(self) -> HotSample:
        now = trio.current_time()
        if now >= self._sampled_at + SAMPLE_S:
            before, self._sample, self._sampled_at = self._sample, self._take_sample(now), now
            if self._sample != before:
                self._condition = _condition(self._sample)
        return self._sample


def _condition(sample: HotSample) -> Condition:
    return Condition(
        swap_used=sample.swap_used,
        disk_free_bytes=sample.disk_free_bytes,
        temperature_c=sample.temperature_c,
        battery=sample.battery,
        pressure=sample.pressure,
        gpus=sample.gpus,
    )
