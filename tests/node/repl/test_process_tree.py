from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from kowalski.node.repl.limits import SessionLimits
from kowalski.node.repl.process_tree import (
    kill_pid,
    kill_pidfd,
    pidfd_of,
    tree_of,
    until_gone,
    weigh,
)
from kowalski.node.repl.work_folders import StorageUse

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


class Said:
    def use(self, root: Path | None, pids: Sequence[int], *, inodes_max: int) -> StorageUse:
        return StorageUse(inodes=len(pids), stored_bytes=0 if root is None else 7)


def test_what_a_tree_stores_is_asked_of_its_storage() -> None:
    assert weigh(os.getpid(), SessionLimits(), None, Said()).stored_bytes == 0
    weight = weigh(os.getpid(), SessionLimits(), Path("/"), Said())
    assert weight.stored_bytes == 7
    assert weight.inodes == weight.processes >= 1
    assert weight.resident_bytes > 1 << 20


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
