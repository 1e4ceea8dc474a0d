"""The room that runs cells, on real sandboxed sessions, asked over frames by a peer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kowalski.node.repl.limits import Limits
from kowalski.node.repl.sessions import KernelHost, open_sessions_host
from kowalski.node.services.repl import PROTOCOL, ReplRoom
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages import repl as wire
from tests.node.repl.rooms import VERSIONS, sandbox_here
from tests.node.services.rooms import Two, hot, open_two

PATIENCE_S = 120.0

Reply = Callable[[wire.SubCall], str]


@dataclass(slots=True)
class Heard:
    """What an asker was told of one cell, in order."""

    done: wire.CellDone
    output: bytes = b""
    prompts: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class RealRoom:
    two: Two
    host: KernelHost
    room: ReplRoom

    async def run(self, cell: wire.CellAsked, reply: Reply = lambda call: call.prompt) -> Heard:
        """Ask, listen to the end, and answer what the cell asks."""
        output, prompts = bytearray(), list[str]()
        asker = self.two.asking.asker
        async with asker.converse(self.two.room.peer, PROTOCOL, cell) as conversation:
            while True:
                message = await conversation.receive()
                match message:
                    case wire.CellOutput():
                        output += message.data
                    case wire.SubCallsAsked():
                        prompts += [call.prompt for call in message.calls]
                        results = tuple(wire.SubCallResult(text=reply(c)) for c in message.calls)
                        answered = wire.SubCallsAnswered(batch=message.batch, results=results)
                        await conversation.send(answered)
                    case wire.CellDone():
                        return Heard(message, bytes(output), prompts)
                    case _:
                        raise AssertionError(message)

    async def close(self, task: str) -> None:
        closed = wire.SessionClosed(task=TaskId(task), term=1)
        await self.two.asking.asker.request(
            self.two.room.peer, PROTOCOL, closed, wire.SessionClosed, timeout_s=PATIENCE_S
        )


def cell(code: str, *, task: str, number: int, **more: Any) -> wire.CellAsked:  # noqa: ANN401 fields
    """Cell `number` of a task whose cells before it have all run in the same session."""
    given = {"language": "python", "timeout_s": PATIENCE_S, "remaining_s": PATIENCE_S, **more}
    after = tuple(range(number))
    return wire.CellAsked(task=TaskId(task), term=1, cell=number, after=after, code=code, **given)


@asynccontextmanager
async def open_real_room(
    folder: Path,
    *,
    slots: int,
    warm: Mapping[str, int] | None = None,
    limits: Limits | None = None,
) -> AsyncIterator[RealRoom]:
    async with (
        open_two(folder) as two,
        open_sessions_host(
            sandbox_here(),
            VERSIONS,
            slots=slots,
            warm=warm or {},
            limits=limits,
            scratch_path=folder / "scratch",
            start_timeout_s=PATIENCE_S,
        ) as host,
    ):
        room = ReplRoom(host, two.room.store, two.room.requester, two.nursery, hot=hot)
        two.room.serve(PROTOCOL, room.answer)
        yield RealRoom(two, host, room)
