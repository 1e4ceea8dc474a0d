from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing

from kowalski.node.repl.limits import SessionLimits
from kowalski.node.repl.sandbox import Launch
from kowalski.node.repl.spawned import Spawned
from tests.node.repl.rooms import until

pytestmark = [pytest.mark.real, pytest.mark.trio]

ROOMY = SessionLimits(memory_bytes=1 << 40)


def launch(*argv: str, closes_after: tuple[int, ...] = ()) -> Launch:
    return Launch(
        argv=argv,
        environment={"PATH": "/usr/bin:/bin"},
        working_folder="/",
        passes=(),
        closes_after=closes_after,
        owns_pids=False,
    )


@contextmanager
def spawned(*argv: str) -> Iterator[Spawned]:
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        tree = Spawned(launch(*argv), stdout=nowhere.fileno(), stderr=nowhere.fileno())
        try:
            yield tree
        finally:
            tree.kill()
            tree.exit_code  # noqa: B018 - reaps
            tree.close()


async def test_the_end_is_noticed_and_its_code_is_a_shells() -> None:
    for script, code in (("exit 7", 7), ("kill -SEGV $$", 128 + signal.SIGSEGV)):
        with spawned("sh", "-c", script) as tree, trio.fail_after(5):
            await tree.wait_dead()
            assert tree.exit_code == code


async def test_two_may_wait_for_the_same_death() -> None:
    with spawned("sleep", "60") as tree, trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.wait_dead)
            nursery.start_soon(tree.wait_dead)
            await trio.testing.wait_all_tasks_blocked()
            tree.kill()
        assert tree.exit_code == 128 + signal.SIGKILL


async def test_a_tree_is_weighed_with_all_its_branches() -> None:
    with spawned("sh", "-c", "sleep 60 & sh -c 'sleep 60; :' & wait") as tree:
        await until(lambda: tree.weight(ROOMY).processes == 4)
        weight = tree.weight(ROOMY)
        assert weight.resident_bytes > 1 << 20
        # Counted again, with the pages that the shells share divided among them.
        assert 0 < tree.weight(SessionLimits(memory_bytes=0)).resident_bytes < weight.resident_bytes
        tree.kill()
        await tree.wait_dead()
        assert tree.weight(ROOMY).resident_bytes == 0


async def test_killing_twice_or_after_the_end_is_harmless() -> None:
    with spawned("true") as tree, trio.fail_after(5):
        await tree.wait_dead()
        tree.kill()
        tree.kill()
        assert tree.exit_code == 0


async def test_descriptors_of_a_launch_are_closed_even_when_it_fails() -> None:
    reading, writing = os.pipe()
    with pytest.raises(FileNotFoundError):
        Spawned(launch("/no/such/program", closes_after=(reading, writing)), stdout=1, stderr=2)
    for fd in (reading, writing):
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)
