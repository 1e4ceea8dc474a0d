"""Disks that take nothing: real file systems, in mount namespaces that the tests made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
KOWALSKI_NODE = Path(sysconfig.get_path("scripts")) / "kowalski-node"
READ_ONLY = 'mount -t tmpfs none "$1" && mount -o remount,ro "$1" && shift && exec "$@"'


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    if sys.platform != "linux" or shutil.which("unshare") is None:
        pytest.skip("mount namespaces are Linux's")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if alone("mount", "-t", "tmpfs", "none", str(tmp_path)).returncode:
        pytest.skip("cannot mount in a namespace")
    made = tmp_path / "disk"
    made.mkdir()
    return made


def alone(*command: str) -> subprocess.CompletedProcess[str]:
    """Run it with mounts of its own."""
    return subprocess.run(
        ["unshare", "--mount", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


@pytest.mark.parametrize("name", ["", "below"])
def test_a_node_does_not_start_where_it_can_keep_nothing_and_says_where(
    disk: Path, name: str
) -> None:
    start = (str(KOWALSKI_NODE), "start", "--no-mdns", "--data-dir", str(disk / name))
    ended = alone("sh", "-c", READ_ONLY, "sh", str(disk), *start)
    assert ended.returncode == 2
    assert ended.stderr.strip() == f"kowalski-node: data_dir {disk / name}: read-only file system"


def test_a_full_disk_takes_no_task_loses_none_and_stops_no_work(disk: Path) -> None:
    ended = alone(sys.executable, "-m", "tests.integration.full_disk", str(disk))
    assert ended.returncode == 0, ended.stderr[-3000:]
    told: dict[str, dict[str, Any]] = json.loads(ended.stdout)
    assert told["before"]["exit_code"] == 0, told["before"]
    assert told["full"]["exit_code"] == 5
    assert "the disk takes no more" in told["full"]["stderr"]
    assert (told["run"]["exit_code"], told["run"]["stdout"]) == (0, "42\n")
    assert '"before"' in told["tasks"]["stdout"]
    assert '"full"' not in told["tasks"]["stdout"], "what was refused was not begun"
    assert told["after"]["exit_code"] == 0, told["after"]
    assert '"before"' in told["left"]["stdout"]
    assert '"full"' in told["left"]["stdout"]
