from __future__ import annotations

from pathlib import Path

import pytest
import trio

from kowalski.node.repl.limits import Limits, SessionLimits
from kowalski.protocol.errors import RequestRefusedError
from tests.node.repl.rooms import Talk, real_host, talk_to, until

pytestmark = [pytest.mark.real, pytest.mark.trio]


async def test_closing_a_session_in_the_middle_of_a_cell_ends_the_cell(tmp_path: Path) -> None:
    async with real_host(scratch_path=tmp_path) as host, trio.open_nursery() as nursery:
        cell = Talk(await host.open("python", {}, 0))
        ends: list[str] = []

        async def run() -> None:
            ends.append((await cell("print('x')\nwhile True: pass")).status)

        nursery.start_soon(run)
        await until(lambda: bool(cell.heard))
        with trio.fail_after(5):
            await cell.session.close()
            await cell.session.close()
        assert [list(folder.iterdir()) for folder in tmp_path.iterdir()] == [[]]
        assert host.slots_free == host.slots
    assert ends == ["died"]


async def test_a_second_cell_at_the_same_time_is_refused() -> None:
    async with talk_to() as cell, trio.open_nursery() as nursery:
        nursery.start_soon(cell, "print('x')\nimport time; time.sleep(60)")
        await until(lambda: bool(cell.heard))
        with pytest.raises(RequestRefusedError, match="busy"):
            await cell("1")
        nursery.cancel_scope.cancel()


async def test_the_seed_decides_what_chance_brings() -> None:
    found = []
    for seed in (1, 1, 2):
        async with talk_to(seed=seed) as cell:
            found.append((await cell("import random; random.random()")).value)
    assert found[0] == found[1] != found[2]


async def test_a_thread_that_grows_between_cells_loses_the_session() -> None:
    limits = Limits(session=SessionLimits(memory_bytes=100 * 1024 * 1024))
    async with talk_to(limits=limits) as cell:
        await cell(
            "import mmap, threading\n"
            "def grow():\n"
            "    global m\n"
            "    go.wait()\n"
            "    m = mmap.mmap(-1, 300 << 20); m.write(b'x' * (300 << 20))\n"
            "go = threading.Event()\n"
            "threading.Thread(target=grow, daemon=True).start()\n"
            "threading.Timer(0.2, go.set).start()"
        )
        await until(lambda: not cell.session.is_alive)
        lost = await cell("1")
        assert lost.status == "died"
        assert "memory" in (lost.error or "")
