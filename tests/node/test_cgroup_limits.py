"""Limits of containers, out of trees of files as the kernel makes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from kowalski.node.cgroup_limits import CgroupLimits, MemoryUse, find_cgroup_limits


def plant(root: Path, files: Mapping[str, str]) -> CgroupLimits:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return find_cgroup_limits(proc=root / "proc", cgroup=root / "cg")


V2 = {"proc/self/cgroup": "0::/a/b\n", "cg/cgroup.controllers": "cpu memory"}
V1 = {"proc/self/cgroup": "4:memory:/a\n2:cpu,cpuacct:/a\n1:name=systemd:/\n"}


def test_v2_counts_what_cannot_be_given_back_and_the_limit_that_leaves_least(
    tmp_path: Path,
) -> None:
    limits = plant(
        tmp_path,
        V2
        | {
            "cg/a/b/memory.max": "1000\n",
            "cg/a/b/memory.current": "300\n",
            "cg/a/b/memory.stat": "anon 1\ninactive_file 100\n",
            "cg/a/memory.max": "2000\n",
            "cg/a/memory.current": "1950\n",
        },
    )
    assert limits.memory() == MemoryUse(2000, 1950)
    (tmp_path / "cg/a/memory.max").write_text("max\n")
    assert limits.memory() == MemoryUse(1000, 200)


def test_v2_cpu_limits_of_all_levels_hold(tmp_path: Path) -> None:
    limits = plant(
        tmp_path,
        V2
        | {
            "cg/a/b/cpu.max": "max 100000\n",
            "cg/a/cpu.max": "50000 100000\n",
            "cg/a/b/cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
        },
    )
    assert limits.cores() == 0.5
    assert limits.cpu_time_s() == 2.5


def test_v1_has_its_own_files(tmp_path: Path) -> None:
    limits = plant(
        tmp_path,
        V1
        | {
            "cg/memory/a/memory.limit_in_bytes": "1000\n",
            "cg/memory/a/memory.usage_in_bytes": "900\n",
            "cg/memory/a/memory.stat": "total_inactive_file 400\n",
            "cg/cpu/a/cpu.cfs_quota_us": "150000\n",
            "cg/cpu/a/cpu.cfs_period_us": "100000\n",
            "cg/cpuacct/a/cpuacct.usage": "3000000000\n",
        },
    )
    assert limits.memory() == MemoryUse(1000, 500)
    assert limits.cores() == 1.5
    assert limits.cpu_time_s() == 3.0


def test_no_limit_in_the_words_of_v1_is_no_limit(tmp_path: Path) -> None:
    limits = plant(
        tmp_path,
        V1
        | {
            "cg/memory/a/memory.limit_in_bytes": "9223372036854771712\n",
            "cg/memory/a/memory.usage_in_bytes": "1\n",
            "cg/cpu/a/cpu.cfs_quota_us": "-1\n",
            "cg/cpu/a/cpu.cfs_period_us": "100000\n",
        },
    )
    assert (limits.memory(), limits.cores()) == (None, None)


@pytest.mark.parametrize("group", ["/docker/of/the/host", "/../../etc"])
def test_a_path_that_is_not_below_the_mount_means_the_mount(tmp_path: Path, group: str) -> None:
    files = {
        "proc/self/cgroup": f"0::{group}\n",
        "cg/cgroup.controllers": "cpu",
        "cg/cpu.max": "200000 100000",
    }
    assert plant(tmp_path, files).cores() == 2.0


@pytest.mark.parametrize(
    "files", [{}, V1, V2, V2 | {"cg/a/b/cpu.max": "x", "cg/a/b/memory.max": "\xff"}]
)
def test_missing_and_broken_files_are_no_limits(tmp_path: Path, files: dict[str, str]) -> None:
    limits = plant(tmp_path, files)
    assert (limits.memory(), limits.cores(), limits.cpu_time_s()) == (None, None, None)
