from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from kowalski.node.config import REPL_SLOTS_MAX
from kowalski.node.repl.canary import PROBE_SLOT
from kowalski.node.repl.seam import SubCall, SubCallResult
from kowalski.node.repl.sessions import SLOTS_MAX
from kowalski.protocol.errors import RequestFailedError, RequestRefusedError
from tests.node.repl.rooms import (
    Talk,
    processes_with,
    real_host,
    sandbox_here,
    talk_to,
    until,
)

pytestmark = [pytest.mark.real, pytest.mark.trio]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def children() -> set[int]:
    found: set[int] = set()
    for thread in Path("/proc/self/task").iterdir():
        words = (thread / "children").read_text().split()
        found.update(int(word) for word in words)
    return found


async def test_nothing_is_left_after_the_host_is_closed(tmp_path: Path) -> None:
    (tmp_path / "input").write_text("x")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    await trio.to_thread.run_sync(lambda: None)
    files, ours = open_files(), children()
    async with real_host(scratch_path=scratch, warm={"python": 1}) as host:
        cell = Talk(await host.open("python", {"in": tmp_path / "input"}, 0))
        marker = "4711.0815"
        await cell(
            f"import subprocess, os\n"
            f"subprocess.Popen(['sleep', '{marker}'])\n"
            f"stubborn = 'trap \"\" TERM INT HUP; sleep {marker}'\n"
            "subprocess.Popen(['setsid', '-f', 'sh', '-c', stubborn])\n"
            "context"
        )
        await until(lambda: len(processes_with(marker)) >= 2)
        other = Talk(await host.open("bash", {}, 0))
        await other("x=1")
        assert children() > ours
    assert processes_with(marker) == []
    assert children() == ours
    assert open_files() == files
    assert list(scratch.iterdir()) == []


async def test_cancelling_everything_leaves_nothing_behind() -> None:
    ours = children()
    with trio.move_on_after(0.5):
        async with talk_to() as cell:
            await cell("import time; time.sleep(60)")
    assert children() == ours


async def test_two_sessions_see_nothing_of_each_other() -> None:
    async with real_host() as host:
        one = Talk(await host.open("python", {}, 0))
        two = Talk(await host.open("python", {}, 0))
        await one("secret = 'mine'; open('/tmp/file', 'w').write('mine')")
        await one("import subprocess; p = subprocess.Popen(['sleep', '4242'])")
        assert (await two("'secret' in globals()")).value == "False"
        assert (await two("import os; os.listdir('/tmp'), os.listdir('/job')")).value == "([], [])"
        seen = await two(
            "[open(f'/proc/{p}/cmdline').read() for p in os.listdir('/proc') if p.isdigit()]"
        )
        assert "4242" not in (seen.value or "")
        assert (await one("secret")).value == "'mine'"


async def test_cells_of_two_sessions_run_at_the_same_time() -> None:
    async with real_host() as host:
        talks = [Talk(await host.open("python", {}, 0)) for _ in range(2)]
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for cell in talks:
                nursery.start_soon(cell, "import time; time.sleep(0.5)")
        assert trio.current_time() - started < 0.9


async def test_a_full_host_and_an_unknown_language_are_refused() -> None:
    async with real_host(slots=1) as host:
        session = await host.open("python", {}, 0)
        assert host.slots_free == 0
        with pytest.raises(RequestRefusedError) as refused:
            await host.open("python", {}, 0)
        assert (refused.value.reason, refused.value.retry_after_s is None) == ("busy", False)
        with pytest.raises(RequestRefusedError, match="unsupported"):
            await host.open("cobol", {}, 0)
        await session.close()
        await (await host.open("python", {}, 0)).close()


async def test_a_cell_that_waits_for_sub_calls_is_in_no_other_sessions_way() -> None:
    async with real_host(slots=1) as host:
        outer = Talk(await host.open("python", {}, 0))
        inner: list[str] = []

        async def answer(calls: tuple[SubCall, ...]) -> tuple[SubCallResult, ...]:
            session = await host.open("python", {}, 0)
            with pytest.raises(RequestRefusedError, match="busy"):
                await host.open("python", {}, 0)
            inner.append((await Talk(session)("6 * 7")).value or "")
            await session.close()
            return tuple(SubCallResult(text=inner[-1]) for _ in calls)

        outcome = await outer.session.run_cell(
            "int(llm_query('x')) + 1",
            timeout_s=10,
            on_output=lambda _stream, _data: None,
            on_sub_calls=answer,
        )
        assert outcome.value == "43"
        assert host.slots_free == 0


async def test_a_session_that_begins_to_close_has_given_up_its_place() -> None:
    async with real_host(slots=1, warm={"python": 1}) as host, trio.open_nursery() as nursery:
        await until(lambda: host.warm_ready > 0)
        first = await host.open("python", {}, 0)
        await until(lambda: host.warm_ready > 0)
        closed = trio.Event()

        async def close() -> None:
            await first.close()
            closed.set()

        nursery.start_soon(close)
        while host.slots_free == 0:
            await trio.lowlevel.checkpoint()
        assert not closed.is_set()
        second = Talk(await host.open("python", {}, 0))
        assert (await second("1")).value == "1"


async def test_more_sessions_in_a_row_than_there_are_places_for_the_dying() -> None:
    async with real_host(slots=1) as host, trio.open_nursery() as nursery:
        for seed in range(6):
            session = await host.open("python", {}, seed)
            nursery.start_soon(session.close)
            await until(lambda: host.slots_free == 1)
    assert host.slots_free == 1


async def test_a_missing_input_fails_the_opening_and_frees_the_slot(tmp_path: Path) -> None:
    async with real_host(slots=1) as host:
        with pytest.raises(RequestFailedError, match="cannot open a session"):
            await host.open("python", {"x": tmp_path / "missing"}, 0)
        assert host.slots_free == 1
        await host.open("python", {}, 0)


async def test_a_warm_kernel_is_taken_and_replaced() -> None:
    async with real_host(slots=3, warm={"python": 1}) as host:
        for seed in range(3):
            await until(lambda: host.warm_ready > 0)
            ready = host.warm_ready
            cell = Talk(await host.open("python", {}, seed))
            assert host.warm_ready == ready - 1
            assert (await cell("1 + 1")).value == "2"


async def test_as_many_slots_as_an_owner_may_set_can_be_had() -> None:
    slots = 2 * REPL_SLOTS_MAX
    async with real_host(slots=slots, warm={"python": 2}, warm_lately_max=2) as host:
        assert host.slots_free == slots
        assert (await Talk(await host.open("bash", {}, 0))("echo here")).stdout == b"here\n"
    assert SLOTS_MAX <= PROBE_SLOT


async def test_a_language_that_was_used_finds_a_kernel_from_then_on() -> None:
    async with real_host(slots=3, warm_lately_max=1) as host:
        assert host.warm_ready == 0
        first = await host.open("bash", {}, 0)
        await until(lambda: host.warm_ready == 1)
        await first.close()
        cell = Talk(await host.open("bash", {}, 0))
        assert host.warm_ready == 0
        assert (await cell("echo warm")).stdout == b"warm\n"
        await until(lambda: host.warm_ready == 1)


async def test_a_kernel_that_died_waiting_is_replaced() -> None:
    ours = children()
    async with real_host(slots=3, warm={"python": 1}) as host:
        await until(lambda: host.warm_ready == 1)
        (server,) = children() - ours
        os.kill(server, signal.SIGKILL)
        await until(lambda: bool(children() - ours - {server}) and host.warm_ready == 1)
        session = Talk(await host.open("python", {}, 0))
        assert (await session("6 * 7")).value == "42"


async def test_a_warm_kernel_sees_the_inputs_of_its_session(tmp_path: Path) -> None:
    (tmp_path / "late").write_text("made after the kernel started")
    async with real_host(warm={"python": 1}) as host:
        await until(lambda: host.warm_ready > 0)
        cell = Talk(await host.open("python", {"late": tmp_path / "late"}, 0))
        assert (await cell("context")).value == "'made after the kernel started'"


async def test_a_sandbox_that_does_not_start_is_told_in_its_own_words() -> None:
    broken = replace(sandbox_here(), interpreter="/usr/bin/no-such-python")
    async with real_host(sandbox=broken) as host:
        with pytest.raises(RequestFailedError, match="no-such-python"):
            await host.open("python", {}, 0)
