"""How one cell ends, whatever it does."""

from __future__ import annotations

import pytest
import trio

from kowalski.node.repl.detection import plain_bubblewrap_here
from kowalski.node.repl.limits import CellLimits, Limits, SessionLimits
from kowalski.node.repl.seam import SubCall, SubCallResult
from kowalski.protocol.errors import PeerUnreachableError
from tests.node.repl.rooms import talk_to, until

pytestmark = [pytest.mark.real, pytest.mark.trio]

MIB = 1024 * 1024


@pytest.mark.parametrize(
    "busy",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "import os; os.system('sleep 60')",
        "import subprocess; subprocess.run(['sleep', '60'])",
        "import subprocess; subprocess.run('trap \"\" TERM; sleep 60', shell=True)",
        "import socket; a, b = socket.socketpair(); a.recv(1)",
        "import threading; threading.Event().wait()",
    ],
)
async def test_a_cell_out_of_time_is_interrupted_and_its_state_kept(busy: str) -> None:
    async with talk_to() as cell:
        stopped = await cell(f"x = 1\nprint('partial')\n{busy}", timeout_s=0.3)
        assert (stopped.status, stopped.exit_code) == ("timeout", None)
        assert stopped.stdout == b"partial\n"
        assert stopped.session_alive
        assert 0.3 <= stopped.duration_s < 0.9
        assert "stopped after 0.3 s" in (stopped.error or "")
        assert (await cell("x")).value == "1"


@pytest.mark.parametrize(
    "deaf",
    [
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        "10 ** 10 ** 9",
        "import signal, time; signal.pthread_sigmask(0, range(1, 65)); time.sleep(60)",
    ],
)
async def test_a_cell_that_heeds_nothing_is_killed_with_its_session(deaf: str) -> None:
    async with talk_to() as cell:
        with trio.fail_after(5):
            stopped = await cell(f"print('partial')\n{deaf}", timeout_s=0.3)
        assert (stopped.status, stopped.session_alive) == ("timeout", False)
        assert stopped.stdout == b"partial\n"
        assert "its session is lost" in (stopped.error or "")
        assert (await cell("1")).status == "died"


async def test_an_interrupt_from_outside_ends_the_cell_as_cancelled() -> None:
    async with talk_to() as cell, trio.open_nursery() as nursery:

        async def interrupt() -> None:
            await until(lambda: bool(cell.heard))
            cell.session.interrupt()

        nursery.start_soon(interrupt)
        stopped = await cell("x = 3\nprint('partial')\nwhile True: pass")
        assert (stopped.status, stopped.stdout) == ("cancelled", b"partial\n")
        assert (await cell("x")).value == "3"


@pytest.mark.parametrize("code", ["while True: pass", "10 ** 10 ** 9"])
async def test_cancelling_the_caller_ends_within_a_second(code: str) -> None:
    async with talk_to() as cell:
        await cell("x = 4")
        with trio.move_on_after(0.2):
            await cell(code)
        assert trio.current_effective_deadline() > trio.current_time()
        started = trio.current_time()
        after = await cell("x")
        assert trio.current_time() - started < 1
        assert (after.value, after.status) in [("4", "ok"), (None, "died")]


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("import os; os._exit(9)", 9),
        ("import ctypes; ctypes.string_at(0)", 139),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137),
    ],
)
async def test_a_dead_process_ends_the_session_and_not_us(code: str, exit_code: int) -> None:
    async with talk_to() as cell:
        died = await cell(f"print('partial')\n{code}")
        assert (died.status, died.exit_code, died.session_alive) == ("died", exit_code, False)
        assert died.stdout == b"partial\n"
        again = await cell("1 + 1")
        assert (again.status, again.session_alive) == ("died", False)


async def test_shared_memory_above_the_limit_kills_the_session() -> None:
    limits = Limits(session=SessionLimits(memory_bytes=100 * MIB))
    async with talk_to(limits=limits) as cell:
        code = (
            "import mmap, time\n"
            "m = mmap.mmap(-1, 300 << 20)\n"
            "m.write(b'x' * (300 << 20))\n"
            "time.sleep(60)"
        )
        killed = await cell(code)
        assert (killed.status, killed.session_alive) == ("memory", False)
        assert "100 MiB" in (killed.error or "")
        assert killed.duration_s < 5


async def test_many_small_processes_above_the_limit_kill_the_session() -> None:
    limits = Limits(session=SessionLimits(memory_bytes=150 * MIB))
    async with talk_to(limits=limits) as cell:
        killed = await cell(
            "import os, time\n"
            "for _ in range(6):\n"
            "    if os.fork() == 0:\n"
            "        x = os.urandom(1 << 20) * 40; time.sleep(60)\n"
            "time.sleep(60)"
        )
        assert killed.status == "memory"


async def test_pages_shared_by_forks_count_once() -> None:
    limits = Limits(session=SessionLimits(memory_bytes=150 * MIB))
    async with talk_to(limits=limits) as cell:
        fine = await cell(
            "import os, time\n"
            "x = os.urandom(1 << 20) * 60\n"
            "pids = [os.fork() for _ in range(1)]\n"
            "for _ in range(3):\n"
            "    if pids[-1]: pids.append(os.fork())\n"
            "time.sleep(0.4)\n"
            "if pids[-1]: [os.waitpid(p, 0) for p in pids]\n"
            "len(x)"
        )
        assert fine.status == "ok"


async def test_a_bomb_of_files_kills_the_session_where_no_file_system_bounds_them() -> None:
    sandbox = plain_bubblewrap_here()
    if isinstance(sandbox, str):
        pytest.skip(sandbox)
    async with talk_to(sandbox=sandbox) as cell:
        killed = await cell("for i in range(1_000_000): open(f'/tmp/{i}', 'w').close()")
        assert (killed.status, killed.session_alive) == ("inodes", False)


async def test_a_bomb_of_files_meets_its_bound() -> None:
    limits = Limits(session=SessionLimits(inodes=500))
    async with talk_to(limits=limits) as cell:
        stopped = await cell("for i in range(1_000_000): open(f'/tmp/{i}', 'w').close()")
        assert "No space left" in (stopped.error or "")
        assert (await cell("len(os.listdir('/tmp')) if 'os' in globals() else i")).value < "500"


@pytest.mark.parametrize(
    "code",
    [
        "while True: print('x' * 1000)",
        "import os\nos.write(1, b'x' * 200_000_000)\nprint('y' * 200_000_000)",
        "import subprocess; subprocess.run(['yes'])",
        "import sys\nwhile True: sys.stderr.write('x' * 100_000)",
    ],
)
async def test_a_flood_of_output_kills_the_session_and_keeps_what_fits(code: str) -> None:
    async with talk_to() as cell:
        killed = await cell(code)
        assert (killed.status, killed.session_alive) == ("output_flood", False)
        kept = max(killed.stdout, killed.stderr, key=len)
        assert MIB <= len(kept) < MIB + 100
        assert max(killed.stdout_bytes, killed.stderr_bytes) > 4 * MIB
        assert sum(len(data) for _, data in cell.heard) <= 4 * MIB


async def test_output_is_cut_head_and_tail_and_heard_in_full() -> None:
    async with talk_to() as cell:
        outcome = await cell("print('first'); print('x' * 2_000_000); print('last')")
        assert outcome.status == "ok"
        assert outcome.stdout_bytes == 2_000_012
        assert outcome.stdout.startswith(b"first\n")
        assert outcome.stdout.endswith(b"last\n")
        assert b"bytes cut" in outcome.stdout
        assert sum(len(data) for _, data in cell.heard) == outcome.stdout_bytes


async def test_output_is_heard_while_the_cell_runs() -> None:
    async with talk_to() as cell, trio.open_nursery() as nursery:
        nursery.start_soon(cell, "print('early')\nimport time; time.sleep(60)")
        await until(lambda: cell.heard == [("stdout", b"early\n")])
        nursery.cancel_scope.cancel()


async def test_the_clock_of_a_cell_stands_while_sub_calls_are_answered() -> None:
    async with talk_to() as cell:
        cell.reply_delay_s = 0.6
        assert (await cell("llm_query('a')", timeout_s=0.3)).value == "'A'"
        late = await cell("llm_query('a')\nimport time; time.sleep(60)", timeout_s=0.3)
        assert late.status == "timeout"
        assert late.duration_s < 1.4


async def test_a_sub_call_that_never_ends_is_ended_by_an_interrupt() -> None:
    async with talk_to() as cell, trio.open_nursery() as nursery:
        cell.reply_delay_s = 1000

        async def interrupt() -> None:
            await until(lambda: bool(cell.batches))
            cell.session.interrupt()

        nursery.start_soon(interrupt)
        assert (await cell("x = 1\nllm_query('a')")).status == "cancelled"
        cell.reply_delay_s = 0
        assert (await cell("x, llm_query('b')")).value == "(1, 'B')"


async def test_an_interrupt_never_cuts_a_frame_in_half() -> None:
    async with talk_to() as cell:
        for _ in range(8):
            async with trio.open_nursery() as nursery:
                cell.batches.clear()

                async def interrupt() -> None:
                    await until(lambda: bool(cell.batches))
                    cell.session.interrupt()

                nursery.start_soon(interrupt)
                stopped = await cell("prompt = 'x' * 7_000_000\nwhile True: llm_query(prompt)")
                assert (stopped.status, stopped.session_alive) == ("cancelled", True)


async def test_more_batches_at_once_than_allowed_are_errors() -> None:
    limits = Limits(cell=CellLimits(sub_call_batches=2))
    async with talk_to(limits=limits) as cell:
        cell.reply_delay_s = 0.2
        outcome = await cell(
            "from concurrent.futures import ThreadPoolExecutor\n"
            "ask = lambda p: llm_query_batched([p])[0]\n"
            "with ThreadPoolExecutor(6) as pool: found = list(pool.map(ask, 'abcdef'))\n"
            "sum(isinstance(f, LLMError) for f in found)"
        )
        assert outcome.value == "4"


async def test_an_error_of_who_answers_comes_out_as_it_is_and_ends_the_cell() -> None:
    async with talk_to() as cell:

        def fail(_: SubCall) -> SubCallResult:
            raise PeerUnreachableError("the asker is gone")

        cell.reply = fail
        with pytest.raises(PeerUnreachableError):
            await cell("x = 1\nllm_query('a')")
        assert (await cell("x")).value == "1"


async def test_answers_of_megabytes_arrive() -> None:
    async with talk_to() as cell:
        cell.reply = lambda call: SubCallResult(text=call.prompt * 1_000_000)
        outcome = await cell("[len(text) for text in llm_query_batched(['abc', 'ü'])]")
        assert outcome.value == "[3000000, 1000000]"


@pytest.mark.parametrize(
    "forged",
    [
        "b'\\xff\\xff\\xff\\xff'",
        "b'\\x00\\x00\\x00\\x04junk'",
        'b\'\\x00\\x00\\x00\\x15\' + b\'{"op":"done","cell":9\'[:21]',
    ],
)
async def test_what_a_cell_forges_on_the_control_channel_costs_only_its_session(
    forged: str,
) -> None:
    async with talk_to() as cell:
        code = (
            "import os, stat, time\n"
            "for fd in range(3, 30):\n"
            "    try:\n"
            f"        if stat.S_ISSOCK(os.fstat(fd).st_mode): os.write(fd, {forged})\n"
            "    except OSError: pass\n"
            "time.sleep(60)"
        )
        died = await cell(code, timeout_s=5)
        assert (died.status, died.session_alive) == ("died", False)


async def test_a_child_left_behind_does_not_hold_the_cell() -> None:
    async with talk_to() as cell:
        outcome = await cell("import subprocess; p = subprocess.Popen(['sleep', '60']); 'go'")
        assert outcome.value == "'go'"
        assert outcome.duration_s < 2


async def test_an_asker_cannot_have_more_time_than_the_owner_allows() -> None:
    async with talk_to(limits=Limits(cell=CellLimits(wall_s=0.2))) as talk:
        outcome = await talk("import time; x = 7\nwhile True: time.sleep(0.01)", timeout_s=60)
        assert outcome.status == "timeout"
        assert outcome.error is not None
        assert "after 0.2 s, the most that the owner of its device allows" in outcome.error
        assert (await talk("x")).value == "7"
