from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from kowalski.node.repl.scripted_sessions import (
    ScriptedCell,
    ScriptedState,
    open_scripted_host,
    prints,
)
from kowalski.node.repl.seam import (
    Answer,
    CellOutcome,
    ReplSession,
    SessionsHost,
    StreamName,
    SubCall,
    SubCallResult,
)
from kowalski.protocol.errors import RequestRefusedError

pytestmark = [pytest.mark.trio]


def script(code: str, state: ScriptedState) -> ScriptedCell:
    match code.split():
        case ["sleep", seconds]:
            return prints("slept", duration_s=float(seconds))
        case ["ask", *prompts]:
            return ScriptedCell(
                sub_calls=tuple(SubCall(prompt) for prompt in prompts),
                outcome_of=lambda results: CellOutcome(
                    "ok", stdout=",".join(result.text or "-" for result in results).encode()
                ),
            )
        case ["die"]:
            return ScriptedCell(CellOutcome("died", session_alive=False))
        case ["answer", text]:
            return prints("", answer=text)
        case _:
            return prints(f"{state.language} {state.seed} {len(state.codes)} {code}")


async def run(session: ReplSession, code: str, *, timeout_s: float = 30.0) -> CellOutcome:
    async def answer(calls: tuple[SubCall, ...]) -> tuple[SubCallResult, ...]:
        await trio.sleep(100)
        return tuple(SubCallResult(text=call.prompt.upper()) for call in calls)

    heard: list[tuple[StreamName, bytes]] = []
    outcome = await session.run_cell(
        code,
        timeout_s=timeout_s,
        on_output=lambda stream, data: heard.append((stream, data)),
        on_sub_calls=answer,
    )
    assert b"".join(data for _, data in heard) == outcome.stdout + outcome.stderr
    return outcome


async def test_a_cell_does_what_the_script_says_of_code_and_state(
    autojump_clock: MockClock,
) -> None:
    async with open_scripted_host(script) as host:
        session = await host.open("python", {"in": Path("in")}, 7)
        assert (await run(session, "x")).stdout == b"python 7 0 x"
        assert (await run(session, "x")).stdout == b"python 7 1 x"
        assert (await run(session, "answer 42")).answer == Answer("42", ready=True)


async def test_the_same_cells_with_the_same_seed_have_the_same_digest(
    autojump_clock: MockClock,
) -> None:
    async with open_scripted_host(script) as host:
        digests = []
        for seed in (1, 1, 2):
            session = await host.open("python", {}, seed)
            digests.append((await run(session, "x")).variables_digest)
            await session.close()
    assert digests[0] == digests[1] != digests[2]


async def test_time_passes_and_runs_out(autojump_clock: MockClock) -> None:
    async with open_scripted_host(script) as host:
        session = await host.open("python", {}, 0)
        slept = await run(session, "sleep 20")
        assert (slept.status, slept.duration_s) == ("ok", 20)
        stopped = await run(session, "sleep 40")
        assert (stopped.status, stopped.duration_s) == ("timeout", 30)
        assert session.is_alive


async def test_the_clock_of_a_cell_stands_while_sub_calls_are_answered(
    autojump_clock: MockClock,
) -> None:
    async with open_scripted_host(script) as host:
        session = await host.open("python", {}, 0)
        assert (await run(session, "ask a b", timeout_s=1)).stdout == b"A,B"


async def test_an_interrupt_ends_the_cell_as_cancelled(autojump_clock: MockClock) -> None:
    async with open_scripted_host(script) as host, trio.open_nursery() as nursery:
        session = await host.open("python", {}, 0)

        async def interrupt() -> None:
            await trio.sleep(5)
            with pytest.raises(RequestRefusedError, match="busy"):
                await run(session, "x")
            session.interrupt()

        nursery.start_soon(interrupt)
        stopped = await run(session, "sleep 20")
        assert (stopped.status, stopped.duration_s) == ("cancelled", 5)
        assert (await run(session, "x")).status == "ok"


async def test_a_lost_session_stays_lost(autojump_clock: MockClock) -> None:
    async with open_scripted_host(script) as host:
        session = await host.open("python", {}, 0)
        assert not (await run(session, "die")).session_alive
        assert (await run(session, "x")).status == "died"


async def test_slots_are_refused_when_taken_and_free_after_closing(
    autojump_clock: MockClock,
) -> None:
    async with open_scripted_host(script, slots=1) as host:
        seam: SessionsHost = host
        session = await seam.open("python", {}, 0)
        with pytest.raises(RequestRefusedError, match="busy"):
            await host.open("python", {}, 0)
        with pytest.raises(RequestRefusedError, match="unsupported"):
            await host.open("cobol", {}, 0)
        await session.close()
        await session.close()
        assert host.slots_free == 1
