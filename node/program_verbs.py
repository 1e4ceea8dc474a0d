"""What the control socket offers of programs and files: run one, and fetch what tasks have left."""

from __future__ import annotations

import base64
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import trio

from kowalski.mesh.content_store import ContentStore, Requester
from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node import control_messages as asked
from kowalski.node.control import Emit
from kowalski.node.plain_files import check_is_plain
from kowalski.node.services.placed_work import PlacedWork
from kowalski.node.services.placing import Placed
from kowalski.protocol import ids
from kowalski.protocol.errors import ConfigError, KowalskiError, PeerUnreachableError
from kowalski.protocol.ids import TaskId
from kowalski.protocol.limits import (
    ARGUMENT_BYTES_MAX,
    ARGUMENTS_MAX,
    CODE_BYTES_MAX,
    WORK_FILE_CHARS_MAX,
    WORK_FILES_MAX,
)
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.repl import CellAsked, CellDone, WorkFile, stays_below
from kowalski.protocol.messages.task import Entry
from kowalski.rlm.journal import event_of
from kowalski.rlm.parsing import LANGUAGES

Reply = dict[str, object]
StreamName = Literal["stdout", "stderr"]

CHARACTER_BYTES_MAX = 4
"""Of UTF-8: what may be missing of the last one."""


class Journals(Protocol):
    async def __call__(self, task: str) -> Iterable[Entry]:
        """What a task has done so far. Raises RequestRefusedError: `unknown`."""
        ...


@dataclass(frozen=True, slots=True)
class ProgramVerbs:
    work: PlacedWork
    store: ContentStore
    requester: Requester
    journals: Journals
    unix_clock: Callable[[], float]

    async def run(self, raw: Reply, emit: Emit) -> Reply:
        """One program on the best peer; its output as it comes. Hanging up cancels it there."""
        request = asked.parse(asked.RunRequest, raw)
        cell = await self._cell(request)
        async with _showing(emit) as shown:
            done, placed = await self.work.run_alone(
                cell, on_output=shown.output, on_restart=shown.restart
            )
        files = await self._fetched(done.files) if request.wants_files else []
        return {
            "exit_code": done.exit_code if done.exit_code is not None else int(done.status != "ok"),
            "status": done.status,
            "error": _error_of(done),
            "value": done.value,
            "duration_s": done.duration_s,
            "files": files,
            "files_omitted": done.files_omitted,
            **_who(placed),
        }

    async def files(self, raw: Reply, _emit: Emit) -> Reply:
        """What the cells of a task have left, on this disk; the last of each name."""
        request = asked.parse(asked.FilesRequest, raw)
        return {"files": await self._fetched(files_of(await self.journals(request.task)))}

    async def _cell(self, request: asked.RunRequest) -> CellAsked:
        language = LANGUAGES.get(request.language.lower())
        if language is None:
            known = ", ".join(sorted(set(LANGUAGES.values())))
            raise ConfigError(f"unknown language {request.language}; known: {known}")
        size = len(request.code.encode())
        if size > CODE_BYTES_MAX:
            raise ConfigError(f"a program of {size} bytes; at most {CODE_BYTES_MAX}")
        if len(request.args) > ARGUMENTS_MAX:
            raise ConfigError(f"{len(request.args)} arguments; at most {ARGUMENTS_MAX}")
        size = max((len(one.encode()) for one in request.args), default=0)
        if size > ARGUMENT_BYTES_MAX:
            raise ConfigError(f"an argument of {size} bytes; at most {ARGUMENT_BYTES_MAX}")
        if len(request.files) > WORK_FILES_MAX:
            raise ConfigError(f"{len(request.files)} files; at most {WORK_FILES_MAX}")
        for one in request.files:
            if not stays_below(one.name) or len(one.name) > WORK_FILE_CHARS_MAX:
                raise ConfigError(f"file {one.name!r}: not a path below the working folder")
        entropy = secrets.token_bytes(10)
        return CellAsked(
            task=TaskId("run-" + ids.task_id(int(self.unix_clock() * 1000), entropy)),
            term=1,
            cell=0,
            language=language,
            code=request.code,
            keeps_session=False,
            name=request.name,
            arguments=request.args,
            stdin=await self._kept(request.stdin) if request.stdin else None,
            files=tuple(
                [
                    WorkFile(name=one.name, content=await self._kept(one.path))
                    for one in request.files
                ]
            ),
            wants_files=request.wants_files,
            timeout_s=request.timeout_s,
            remaining_s=request.timeout_s,
        )

    async def _kept(self, path: str) -> ContentRef:
        try:
            await check_is_plain(Path(path))
            return await self.store.put_file(Path(path))
        except OSError as error:
            raise ConfigError(f"file {path}: {error.strerror or error}") from error

    async def _fetched(self, files: Iterable[WorkFile]) -> list[Reply]:
        """Each with its path on this disk, or with why it cannot be had."""
        found: list[Reply] = []
        for each in files:
            row: Reply = {"name": each.name, "bytes": each.content.bytes_total}
            try:
                if not stays_below(each.name):
                    raise PeerUnreachableError("its name leads elsewhere")
                row["path"] = str(await self.store.fetch(each.content, self.requester))
            except KowalskiError as error:
                row["error"] = str(error)
            found.append(row)
        return found


def files_of(entries: Iterable[Entry]) -> tuple[WorkFile, ...]:
    """What the cells of a task left, by name, the last of each."""
    found: dict[str, WorkFile] = {}
    for entry in entries:
        event = event_of(entry)
        if isinstance(event, journal.CellFinished):
            found.update((each.name, each) for each in event.files)
    return tuple(found[name] for name in sorted(found))


def _error_of(done: CellDone) -> str | None:
    """What went wrong, unless the exit code says it all."""
    error = done.error or ""
    is_exit = error.startswith("the cell ended with ") or error == f"exit code {done.exit_code}"
    return None if is_exit else done.error


def _who(placed: Placed) -> Reply:
    return {
        "peer": placed.peer,
        "name": placed.name,
        "why": placed.why,
        "attempts": placed.attempts,
    }


class _Showing:
    """Output on its way to the asker: nothing is lost, and what waits is one event."""

    def __init__(self) -> None:
        self._notes: deque[Reply] = deque()
        self._pieces: deque[tuple[StreamName, bytearray]] = deque()
        self._begun: dict[StreamName, bytes] = {}
        """The beginning of a character whose end is still to come."""
        self.news = trio.Event()
        self.is_over = False

    def output(self, stream: StreamName, data: bytes) -> None:
        if not self._pieces or self._pieces[-1][0] != stream:
            self._pieces.append((stream, bytearray()))
        self._pieces[-1][1].extend(data)
        self.news.set()

    def restart(self, why: str) -> None:
        self._notes.append({"kind": "note", "text": f"another peer begins anew: {why}"})
        self.news.set()

    def end(self) -> None:
        self.is_over = True
        self.news.set()

    def next(self) -> Reply | None:
        if self._notes:
            return self._notes.popleft()
        while self._pieces:
            stream, piece = self._pieces.popleft()
            data = self._begun.pop(stream, b"") + piece
            if tail := _unfinished(data):
                self._begun[stream] = tail
                data = data[: -len(tail)]
            if data:
                return _event(stream, data)
        if self.is_over and self._begun:
            return _event(*self._begun.popitem())
        return None


def _unfinished(data: bytes) -> bytes:
    """What of UTF-8 begins at the end of `data` and does not end there."""
    for back in range(1, min(CHARACTER_BYTES_MAX, len(data) + 1)):
        lead = data[-back]
        if lead & 0xC0 != 0x80:
            length = 4 if lead >= 0xF0 else 3 if lead >= 0xE0 else 2 if lead >= 0xC0 else 1
            return data[-back:] if length > back else b""
    return b""


def _event(stream: StreamName, data: bytes) -> Reply:
    event: Reply = {"kind": "output", "stream": stream, "text": data.decode(errors="replace")}
    try:
        data.decode()
    except UnicodeDecodeError:
        # Not text: who writes it to a file wants the bytes.
        event["base64"] = base64.b64encode(data).decode("ascii")
    return event


@asynccontextmanager
async def _showing(emit: Emit) -> AsyncIterator[_Showing]:
    """Leaving the block waits until all has been emitted."""
    showing = _Showing()

    async def forward() -> None:
        while True:
            showing.news = trio.Event()
            is_over = showing.is_over
            while (event := showing.next()) is not None:
                await emit(event)
            if is_over:
                return
            await showing.news.wait()

    async with open_plain_nursery() as nursery:
        nursery.start_soon(forward)
        yield showing
        showing.end()
