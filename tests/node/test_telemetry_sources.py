"""What the device says of itself."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

from kowalski.node.telemetry_sources import (
    HotSample,
    HotSource,
    read_profile,
)
from kowalski.protocol.messages.telemetry import Pressure

CONTAINER = {
    "proc/self/cgroup": "0::/\n",
    "cg/cgroup.controllers": "cpu memory",
    "cg/memory.max": "67108864\n",
    "cg/memory.current": "50331648\n",
    "cg/memory.stat": "inactive_file 0\n",
    "cg/cpu.max": "50000 100000\n",
    "cg/cpu.stat": "usage_usec 1000000\n",
}


def plant(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def source_at(root: Path) -> HotSource:
    return HotSource(proc=root / "proc", cgroup=root / "cg")


def test_this_machine_has_a_profile() -> None:
    profile = read_profile()
    assert 0 < profile.cores <= (os.cpu_count() or 1)
    assert profile.memory_bytes is not None
    assert 0 < profile.memory_bytes <= psutil.virtual_memory().total
    assert profile.hostname
    assert profile.cpu
    assert profile.architecture
    assert profile.system


def test_every_value_of_a_sample_is_unknown_or_in_its_range() -> None:
    sample = HotSource().sample(0.0)
    for name in ("memory_available", "swap_used", "cpu_used"):
        value = getattr(sample, name)
        assert value is None or 0 <= value <= 1
    assert sample.memory_available
    assert sample.load_per_core is None or sample.load_per_core >= 0
    if sample.pressure is not None:
        shares = sample.pressure.model_dump().values()
        assert all(value is None or 0 <= value <= 1 for value in shares)


def test_a_container_has_the_memory_and_the_cores_of_its_limits(tmp_path: Path) -> None:
    plant(tmp_path, CONTAINER)
    profile = read_profile(proc=tmp_path / "proc", cgroup=tmp_path / "cg")
    assert (profile.cores, profile.memory_bytes) == (0.5, 64 << 20)
    assert source_at(tmp_path).sample(0.0).memory_available == 0.25


def test_in_a_container_cpu_use_is_measured_against_its_limit(tmp_path: Path) -> None:
    plant(tmp_path, CONTAINER)
    source = source_at(tmp_path)
    assert source.sample(10.0).cpu_used is None
    # Half a core for 2 s is 1 s; a quarter of it was used.
    plant(tmp_path, {"cg/cpu.stat": "usage_usec 1250000\n"})
    assert source.sample(12.0).cpu_used == pytest.approx(0.25)
    # Too soon to tell: the last value stays.
    assert source.sample(12.01).cpu_used == pytest.approx(0.25)


def test_pressure_is_a_fraction_and_each_part_of_it_optional(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "proc/pressure/cpu": "some avg10=12.50 avg60=0.00 total=1\nfull avg10=1.0\n",
            "proc/pressure/io": "nonsense\n",
        },
    )
    assert source_at(tmp_path).sample(0.0).pressure == Pressure(cpu=0.125)


def test_a_system_that_hides_everything_is_no_error(tmp_path: Path) -> None:
    sample = source_at(tmp_path).sample(0.0)
    assert isinstance(sample, HotSample)
    assert sample.pressure is None
    assert read_profile(proc=tmp_path, cgroup=tmp_path).cpu


@pytest.mark.parametrize(
    ("cpuinfo", "cpu"),
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC\nmodel\t\t: 1\n", "AMD EPYC"),
        ("processor: 0\nHardware: BCM\nModel\t\t: Raspberry Pi 5\n", "Raspberry Pi 5"),
        ("model name: " + "x" * 1000, "x" * 256),
    ],
)
@pytest.mark.skipif(os.uname().sysname != "Linux", reason="the name comes from /proc")
def test_the_name_of_the_cpu_is_found(tmp_path: Path, cpuinfo: str, cpu: str) -> None:
    plant(tmp_path, {"cpuinfo": cpuinfo})
    assert read_profile(proc=tmp_path, cgroup=tmp_path).cpu == cpu


def test_the_disk_is_the_one_that_the_data_is_on(tmp_path: Path) -> None:
    profile, sample = read_profile(disk=tmp_path), HotSource(disk=tmp_path).sample(0.0)
    assert sample.disk_free_bytes is not None
    assert profile.disk_bytes is not None
    assert 0 < sample.disk_free_bytes <= profile.disk_bytes
    gone = HotSource(disk=tmp_path / "gone").sample(0.0)
    assert gone.disk_free_bytes is None
    assert HotSource().sample(0.0).disk_free_bytes is None, "no disk was named"


def test_two_sources_in_one_process_do_not_share_what_they_measured(tmp_path: Path) -> None:
    plant(tmp_path, CONTAINER)
    one, other = source_at(tmp_path), source_at(tmp_path)
    one.sample(0.0)
    plant(tmp_path, {"cg/cpu.stat": "usage_usec 1500000\n"})
    assert one.sample(2.0).cpu_used == pytest.approx(0.5)
    assert other.sample(2.0).cpu_used is None


def test_a_sample_costs_less_than_a_millisecond_of_cpu() -> None:
    source = HotSource()
    source.sample(0.0)
    costs = []
    for number in range(50):
        start = time.thread_time()
        source.sample(number / 100)
        costs.append(time.thread_time() - start)
    assert sorted(costs)[len(costs) // 4] < 0.001
