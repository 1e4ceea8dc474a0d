from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import trio

from kowalski.node.repl.process_tree import (
    kill_pid,
    kill_pidfd,
    pidfd_of,
    tree_of,
    until_gone,
    weigh,
)

pytestmark = [pytest.mark.real]


def test_a_tree_is_the_process_and_all_below_it() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60 & echo; wait"], stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        root, *below = tree_of(shell.pid)
        assert root == shell.pid
        assert len(below) == 1
        for pid in (*below, root):
            kill_pid(pid)


def test_inodes_are_those_of_the_fullest_folder(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    weight = weigh(os.getpid(), 1 << 40, (tmp_path, Path("/no/such/folder")))
    assert abs(weight.inodes - (found.f_files - found.f_ffree)) < 10_000
    assert weigh(os.getpid(), 1 << 40, ()).inodes == 0


@pytest.mark.trio
async def test_a_death_is_waited_for_and_killing_the_dead_is_harmless() -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        pidfd = pidfd_of(sleeper.pid)
        kill_pidfd(pidfd)
        with trio.fail_after(5):
            await until_gone(pidfd)
        sleeper.wait()
        kill_pidfd(pidfd)
        assert pidfd is not None
        os.close(pidfd)
    assert pidfd_of(sleeper.pid) is None
