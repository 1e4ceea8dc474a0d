"""What this device is, and how busy it is right now.

Every probe is optional, for phones and containers hide much: None is "unknown", never zero. Limits
of a container count instead of the machine's. No process is ever walked (2 ms and more).
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from kowalski.node.cgroup_limits import CGROUP, PROC, CgroupLimits, find_cgroup_limits
from kowalski.node.gpu_sources import GpuSource
from kowalski.protocol.messages.telemetry import Battery, Gpu, GpuUse, Pressure

T = TypeVar("T")

TEXT_CHARS_MAX = 256
# Some sensors take milliseconds to answer, and none of them moves fast.
SENSOR_INTERVAL_S = 30.0
CPU_INTERVAL_S_MIN = 0.1


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """What rarely changes. `cores` may be a fraction, in a container with a CPU limit.

    `disk_bytes` is the size of the disk that the node's data is on.
    """

    hostname: str
    cpu: str
    cores: float
    architecture: str
    system: str
    memory_bytes: int | None
    gpus: tuple[Gpu, ...]
    disk_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class HotSample:
    """How busy the device is: fractions from 0 to 1, except `load_per_core`, which has no top."""

    memory_available: float | None
    swap_used: float | None
    cpu_used: float | None
    load_per_core: float | None
    pressure: Pressure | None
    battery: Battery | None
    temperature_c: float | None
    disk_free_bytes: int | None = None
    gpus: tuple[GpuUse, ...] = ()


def read_profile(
    *,
    proc: Path = PROC,
    cgroup: Path = CGROUP,
    gpus: GpuSource | None = None,
    disk: Path | None = None,
) -> DeviceProfile:
    """Look once; milliseconds. `disk`: a file or folder on the disk that counts, if any does."""
    limits = find_cgroup_limits(proc=proc, cgroup=cgroup)
    memory = _optional(psutil.virtual_memory)
    total_bytes = None if memory is None else memory.total
    limited = limits.memory()
    if limited is not None:
        total_bytes = min(limited.limit_bytes, total_bytes or limited.limit_bytes)
    return DeviceProfile(
        hostname=socket.gethostname()[:TEXT_CHARS_MAX],
        cpu=_cpu_model(proc)[:TEXT_CHARS_MAX],
        cores=_cores(limits),
        architecture=platform.machine(),
        system=_system()[:TEXT_CHARS_MAX],
        memory_bytes=total_bytes,
        gpus=gpus.gpus if gpus is not None else (),
        disk_bytes=None if (usage := _disk(disk)) is None else usage[0],
    )


class HotSource:
    """Takes samples; remembers only what CPU use is measured against.

    `sample` wants the seconds of any monotonic clock.
    """

    def __init__(
        self,
        *,
        proc: Path = PROC,
        cgroup: Path = CGROUP,
        gpus: GpuSource | None = None,
        disk: Path | None = None,
    ) -> None:
        self._proc = proc
        self._gpus = gpus
        self._disk = disk
        self._limits = find_cgroup_limits(proc=proc, cgroup=cgroup)
        self._cores = _cores(self._limits)
        self._has_cpu_limit = self._limits.cores() is not None
        self._cpu_before: tuple[float, float] | None = None
        self._cpu_last: float | None = None
        self._sensors_at = float("-inf")
        self._battery: Battery | None = None
        self._temperature_c: float | None = None
        self._disk_free_bytes: int | None = None

    def sample(self, now: float) -> HotSample:
        """One sample: under a millisecond but for the sensors, which are read now and then."""
        if now - self._sensors_at >= SENSOR_INTERVAL_S:
            self._sensors_at = now
            self._battery = _battery()
            self._temperature_c = _hottest_c()
            usage = _disk(self._disk)
            self._disk_free_bytes = None if usage is None else usage[1]
        swap = _optional(psutil.swap_memory)
        load = _optional(os.getloadavg)
        return HotSample(
            memory_available=self._memory_available(),
            swap_used=None if swap is None else _fraction(swap.percent / 100),
            cpu_used=self._cpu_used(now),
            load_per_core=None if load is None else load[0] / self._cores,
            pressure=_pressure(self._proc),
            battery=self._battery,
            temperature_c=self._temperature_c,
            disk_free_bytes=self._disk_free_bytes,
            gpus=() if self._gpus is None else self._gpus.use(now),
        )

    def _memory_available(self) -> float | None:
        memory = _optional(psutil.virtual_memory)
        limited = self._limits.memory()
        if memory is None or not memory.total:
            if limited is None:
                return None
            return _fraction(1 - limited.used_bytes / limited.limit_bytes)
        if limited is None or limited.limit_bytes >= memory.total:
            return _fraction(memory.available / memory.total)
        left_bytes = min(memory.available, limited.limit_bytes - limited.used_bytes)
        return _fraction(left_bytes / limited.limit_bytes)

    def _cpu_used(self, now: float) -> float | None:
        before, after = self._cpu_before, self._cpu_times(now)
        if before is not None and after is not None:
            elapsed_s = after[1] - before[1]
            # The kernel counts in steps of 10 ms: over a shorter time the last value is better.
            if elapsed_s < CPU_INTERVAL_S_MIN:
                return self._cpu_last
            self._cpu_last = _fraction((after[0] - before[0]) / elapsed_s)
        self._cpu_before = after
        return self._cpu_last

    def _cpu_times(self, now: float) -> tuple[float, float] | None:
        """Seconds of work, and seconds in which work could have been done."""
        if self._has_cpu_limit:
            spent_s = self._limits.cpu_time_s()
            return None if spent_s is None else (spent_s, now * self._cores)
        times = _optional(psutil.cpu_times)
        if times is None:
            return None
        # Linux counts a guest's time in `user` as well.
        total_s = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        return total_s - times.idle - getattr(times, "iowait", 0.0), total_s


def _optional(probe: Callable[[], T]) -> T | None:
    """What the probe says, or None where this system does not tell."""
    try:
        return probe()
    except (OSError, ValueError, LookupError, AttributeError, RuntimeError, Warning, psutil.Error):
        return None


def _text(path: Path) -> str:
    return _optional(lambda: path.read_text(encoding="utf-8", errors="replace")) or ""


def _fraction(value: float) -> float:
    return min(1.0, max(0.0, value))


def _cores(limits: CgroupLimits) -> float:
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    cores = float(len(affinity(0)) if affinity is not None else os.cpu_count() or 1)
    quota = limits.cores()
    return cores if quota is None else min(cores, quota)


def _cpu_model(proc: Path) -> str:
    if sys.platform == "darwin":
        brand = _optional(_mac_cpu_brand)
        if brand:
            return brand
    fields = [line.partition(":") for line in _text(proc / "cpuinfo").splitlines()]
    found = {name.strip(): value.strip() for name, _, value in reversed(fields)}
    # Some ARM boards name only themselves.
    return found.get("model name") or found.get("Model") or platform.machine()


def _mac_cpu_brand() -> str:
    command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        finished = subprocess.run(command, capture_output=True, check=True, text=True, timeout=2)
    except subprocess.SubprocessError as error:
        raise OSError(str(error)) from error
    return finished.stdout.strip()


def _system() -> str:
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]}"
    kernel = f"{platform.system()} {platform.release()}"
    release = _optional(platform.freedesktop_os_release) or {}
    name = release.get("PRETTY_NAME")
    return f"{name}, {kernel}" if name else kernel


def _pressure(proc: Path) -> Pressure | None:
    cpu, memory, io = (_pressure_of(proc / "pressure" / name) for name in ("cpu", "memory", "io"))
    if cpu is memory is io is None:
        return None
    return Pressure(cpu=cpu, memory=memory, io=io)


def _pressure_of(path: Path) -> float | None:
    """`some avg10=1.23 avg60=... total=...`: a percentage."""

    def read() -> float:
        some = path.read_text(encoding="ascii").splitlines()[0].split()
        return _fraction(float(some[1].removeprefix("avg10=")) / 100)

    return _optional(read)


def _battery() -> Battery | None:
    probe = getattr(psutil, "sensors_battery", None)
    found = None if probe is None else _optional(probe)
    if found is None:
        return None
    return Battery(charge=_fraction(found.percent / 100), is_plugged=found.power_plugged)


def _disk(at: Path | None) -> tuple[int, int] | None:
    """Bytes in all, and those that are free to us."""
    usage = None if at is None else _optional(lambda: shutil.disk_usage(at))
    return None if usage is None else (usage.total, usage.free)


def _hottest_c() -> float | None:
    probe = getattr(psutil, "sensors_temperatures", None)
    groups = None if probe is None else _optional(probe)
    if not groups:
        return None
    readings = [sensor.current for sensors in groups.values() for sensor in sensors]
    # Broken sensors say things like -128 or 65261.
    return max((value for value in readings if value and 0 < value < 150), default=None)
