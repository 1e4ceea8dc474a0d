"""Something is killed at any moment of a cell's life: a process, its fork server, or who asked."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import psutil
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.repl.kernel_session import KernelSession
from kowalski.node.repl.kernel_source import ForkingSource
from kowalski.node.repl.process_tree import kill_pid, tree_of
from kowalski.node.repl.seam import CellOutcome, StreamName, SubCall, SubCallResult
from kowalski.node.repl.sessions import KernelHost, open_sessions_host
from kowalski.protocol.errors import RequestFailedError
from tests.node.repl.rooms import VERSIONS, sandbox_here

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

Victim = Literal["kernel", "first process", "fork server", "asker", "cell", "session"]
VICTIMS: tuple[Victim, ...] = (
    *("kernel", "first process", "fork server"),
    *("asker", "cell", "session"),
)
ENDS = {"ok", "error", "cancelled", "died"}
PATIENCE_S = 60.0

# Speaks, asks, starts a process, asks several things at once, works, and leaves a file.
LIFE = """
import os, subprocess
print('one', flush=True)
a = llm_query('first')
print(a, flush=True)
subprocess.run(['sleep', '0.002'])
print(*llm_query_batched(['x', 'y', 'z']), flush=True)
with open('left', 'w') as file:
    file.write(a * 1000)
total = sum(range(50_000))
print('last', flush=True)
total
"""
MOMENTS = (
    *("opening", "opened", "said 1", "asked 1", "answered 1", "said 2"),
    *("asked 2", "answered 2", "said 3", "said 4", "done", "collected"),
)


@dataclass(frozen=True, slots=True)
class Strike:
    """Who is killed, at which moment, and how long after it."""

    victim: Victim
    moment: str
    delay_ms: int


strikes = st.lists(
    st.builds(
        Strike,
        st.sampled_from(VICTIMS),
        st.sampled_from(MOMENTS),
        st.sampled_from((0, 0, 1, 3, 9)),
    ),
    min_size=1,
    max_size=3,
)


@dataclass(slots=True)
class Life:
    """One session and its one cell, with strikes to come."""

    host: KernelHost
    nursery: trio.Nursery
    plan: list[Strike]
    asker: trio.CancelScope = field(default_factory=trio.CancelScope)
    session: KernelSession | None = None
    seen: dict[str, int] = field(default_factory=dict[str, int])

    async def live(self) -> CellOutcome | None:
        """The outcome; None where the asker went away, or no session came up."""
        outcome = None
        try:
            with self.asker:
                self.reach("opening")
                self.session = await self.host.open("python", {}, 0)
                self.reach("opened")
                outcome = await self.session.run_cell(
                    LIFE, timeout_s=PATIENCE_S, on_output=self.hear, on_sub_calls=self.answer
                )
                self.reach("done")
                await self.session.collect(files_max=10, bytes_max=1 << 20)
                self.reach("collected")
        except RequestFailedError as error:
            assert error.code == "sandbox"  # noqa: PT017 - what else may come is let through
        finally:
            if self.session is not None:
                with trio.CancelScope(shield=True):
                    await self.session.close()
        return outcome

    def hear(self, _stream: StreamName, data: bytes) -> None:
        for _ in range(data.count(b"\n")):
            self.reach("said", counted=True)

    async def answer(self, calls: tuple[SubCall, ...]) -> tuple[SubCallResult, ...]:
        self.reach("asked", counted=True)
        await trio.sleep(0.002)
        self.reach("answered", counted=True)
        return tuple(SubCallResult(text=call.prompt) for call in calls)

    def reach(self, moment: str, *, counted: bool = False) -> None:
        if counted:
            self.seen[moment] = self.seen.get(moment, 0) + 1
            moment = f"{moment} {self.seen[moment]}"
        for strike in self.plan:
            if strike.moment == moment:
                self.nursery.start_soon(self.strike, strike)

    async def strike(self, strike: Strike) -> None:
        await trio.sleep(strike.delay_ms / 1000)
        match strike.victim:
            case "kernel":
                kill_pid(list(self.processes())[-1]) if self.processes() else None
            case "first process":
                kill_pid(self.processes()[0]) if self.processes() else None
            case "fork server":
                kill_pid(server_of(self.host))
            case "asker":
                self.asker.cancel()
            case "cell" if self.session is not None:
                self.session.interrupt()
            case "session" if self.session is not None:
                await self.session.close()
            case _:
                pass  # there is none yet

    def processes(self) -> list[int]:
        root = self.session and self.session._kernel.tree.root()
        return list(tree_of(int(root.parent.name))) if root else []


def server_of(host: KernelHost) -> int:
    source = host._source
    assert isinstance(source, ForkingSource)
    server = source._server._server
    assert server is not None
    return server._spawned.pid


async def live_and_be_killed(plan: list[Strike], scratch: Path) -> None:
    with trio.fail_after(3 * PATIENCE_S):
        async with open_sessions_host(
            sandbox_here(),
            VERSIONS,
            slots=2,
            warm={},
            scratch_path=scratch,
            start_timeout_s=PATIENCE_S,
        ) as host:
            await (await host.open("python", {}, 0)).close()
            async with open_plain_nursery() as nursery:
                life = Life(host, nursery, plan)
                outcome = await life.live()
            assert outcome is None or outcome.status in ENDS
            if outcome is not None and outcome.status == "ok":
                assert outcome.stdout == b"one\nfirst\nx y z\nlast\n"
                assert outcome.value == str(sum(range(50_000)))
            assert host.slots_free == 2
            await lives_on(host)


async def lives_on(host: KernelHost) -> None:
    session = await host.open("python", {}, 0)
    done = await session.run_cell(
        "6 * 7", timeout_s=PATIENCE_S, on_output=lambda *_: None, on_sub_calls=nobody
    )
    assert done.value == "42"
    await session.close()


async def nobody(calls: tuple[SubCall, ...]) -> tuple[SubCallResult, ...]:
    await trio.lowlevel.checkpoint()
    return tuple(SubCallResult(error="nobody") for _ in calls)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def nothing_is_left_of(work: Callable[[Path], None]) -> None:
    before = descriptors()
    with tempfile.TemporaryDirectory() as made:
        work(Path(made))
        assert list(Path(made).iterdir()) == []
    assert psutil.Process().children(recursive=True) == []
    assert descriptors() == before


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(plan=strikes)
def test_whatever_is_killed_whenever_the_cell_ends_and_nothing_is_left(plan: list[Strike]) -> None:
    nothing_is_left_of(lambda scratch: trio.run(partial(live_and_be_killed, plan, scratch)))


def test_unharmed_it_reaches_every_moment() -> None:
    reached: list[str] = []

    class Watched(Life):
        def reach(self, moment: str, *, counted: bool = False) -> None:
            super().reach(moment, counted=counted)
            reached.append(f"{moment} {self.seen[moment]}" if counted else moment)

    async def live(scratch: Path) -> None:
        async with (
            open_sessions_host(
                sandbox_here(),
                VERSIONS,
                slots=1,
                warm={},
                scratch_path=scratch,
                start_timeout_s=PATIENCE_S,
            ) as host,
            open_plain_nursery() as nursery,
        ):
            outcome = await Watched(host, nursery, []).live()
            assert outcome is not None
            assert outcome.status == "ok"

    nothing_is_left_of(lambda scratch: trio.run(live, scratch))
    assert set(reached) == set(MOMENTS)
