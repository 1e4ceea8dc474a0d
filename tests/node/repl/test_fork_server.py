"""What becomes of sessions and of their askers when the fork server, or the asker, goes away."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio
import trio.testing

from kowalski.node.repl.kernel import Kernel, start_kernel
from kowalski.node.repl.kernel_source import ForkingSource, KernelSource
from kowalski.node.repl.languages import kernels_of
from kowalski.node.repl.limits import SessionLimits
from kowalski.node.repl.process_tree import children_of, tree_of
from kowalski.protocol.errors import RequestFailedError
from tests.node.repl.rooms import kernel_source, talk_to, until

pytestmark = [pytest.mark.real, pytest.mark.trio]

SLEEPER = {"sleeper": compile("import time; time.sleep(60)", "<sleeper>", "exec")}


async def start(source: KernelSource, slot: int = 0) -> Kernel:
    return await start_kernel(
        source, "python_kernel.py", limits=SessionLimits(), slot=slot, timeout_s=60
    )


def server_of(source: KernelSource) -> int:
    """The process that was spawned: bwrap."""
    assert isinstance(source, ForkingSource)
    server = source._server._server
    assert server is not None
    return server._spawned.pid


async def test_a_server_that_dies_takes_its_sessions_along_and_the_next_starts_another() -> None:
    async with kernel_source() as source:
        kernel = await start(source)
        first = server_of(source)
        os.kill(first, signal.SIGKILL)
        with trio.fail_after(60):
            await kernel.tree.wait_dead()
        assert not kernel.is_alive
        assert kernel.tree.exit_code == 137
        await kernel.close()
        again = await start(source)
        assert server_of(source) != first
        await again.close()


async def test_who_asks_while_the_server_dies_gets_a_session_all_the_same() -> None:
    async with kernel_source() as source:
        await (await start(source)).close()
        os.kill(server_of(source), signal.SIGKILL)
        await (await start(source)).close()


async def test_nothing_of_a_session_survives_its_server() -> None:
    async with kernel_source() as source:
        kernel = await start(source)
        root = kernel.tree.root()
        assert root is not None
        pids = list(tree_of(int(root.parent.name)))
        assert len(pids) >= 2
        os.kill(server_of(source), signal.SIGKILL)
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), within_s=60)
        await kernel.close()


async def test_an_order_that_cannot_be_carried_out_is_told_in_the_systems_words() -> None:
    limits = SessionLimits(folder_bytes=-1)
    async with kernel_source() as source:
        with pytest.raises(RequestFailedError, match="mount: Invalid argument"):
            await start_kernel(source, "python_kernel.py", limits=limits, slot=0, timeout_s=10)
        await (await start(source)).close()


async def test_a_session_that_nobody_waits_for_any_more_does_not_stay() -> None:
    async with kernel_source(kernels={**kernels_of(("python",)), **SLEEPER}) as source:
        await (await start(source)).close()
        with trio.move_on_after(0) as late:
            await start_kernel(source, "sleeper", limits=SessionLimits(), slot=0, timeout_s=5)
        assert late.cancelled_caught
        with pytest.raises(RequestFailedError, match="no kernel within"):
            await start_kernel(source, "sleeper", limits=SessionLimits(), slot=0, timeout_s=0.3)
        (inner,) = children_of(server_of(source))
        # bwrap's first process and the fork server, and no session.
        await until(lambda: len(list(tree_of(inner))) == 2, within_s=60)


async def test_many_start_at_once() -> None:
    async with kernel_source() as source:
        kernels: list[Kernel] = []

        async def one(slot: int) -> None:
            kernels.append(await start(source, slot))

        async with trio.open_nursery() as nursery:
            for slot in range(12):
                nursery.start_soon(one, slot)
        roots = {str(kernel.tree.root()) for kernel in kernels}
        assert len(roots) == 12
        async with trio.open_nursery() as nursery:
            for kernel in kernels:
                nursery.start_soon(kernel.close)


async def test_the_exit_code_of_a_session_arrives() -> None:
    async with kernel_source() as source:
        kernel = await start(source)
        await kernel.open_session({}, 0)
        await kernel.channel.send({"op": "cell", "cell": 1, "code": "import os; os._exit(7)"})
        await kernel.tree.wait_dead()
        assert kernel.tree.exit_code == 7
        await kernel.close()


async def test_a_session_is_the_first_to_go_and_the_last_to_run() -> None:
    async with talk_to() as talk:
        told = await talk("import os; os.nice(0), open('/proc/self/oom_score_adj').read().strip()")
        assert told.value == f"({min(19, os.nice(0) + 10)}, '1000')"
