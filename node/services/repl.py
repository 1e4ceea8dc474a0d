"""The room that runs other peers' cells in this node's sandbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
import trio

from kowalski.mesh.content_store import ContentStore, Requester
from kowalski.mesh.conversation import Conversation
from kowalski.node.core import worker_desk
from kowalski.node.core.fences import Stale
from kowalski.node.core.worker_desk import WorkerDesk
from kowalski.node.repl.seam import (
    CellOutcome,
    ReplSession,
    Scene,
    SessionsHost,
)
from kowalski.node.services.running_cell import RunningCell
from kowalski.node.services.texts import fitting
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import PeerId
from kowalski.protocol.limits import OUTPUT_CHARS_SHOWN, WORK_FILES_MAX
from kowalski.protocol.messages import repl as wire
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.repl import stays_below
from kowalski.protocol.messages.telemetry import Hot, Occupancy
from kowalski.rlm.truncation import head_and_tail

log = structlog.get_logger(__name__)

PROTOCOL = "/kowalski/repl/1"
IDLE_S_MAX = 600.0
RETRY_AFTER_S = 1.0
FILES_BYTES_MAX = 64 * 1024 * 1024
"""Of what one cell leaves."""
SPARED_S = 5.0
"""A session used so lately is not evicted for a newcomer: tasks that take turns would replay
all they did at every turn."""

SWEPT_AFTER_S = 0.003
"""To kill a session's processes and to remove its folders takes as long as to answer its asker."""

ORPHAN_S = 20.0
"""How long a cell of a task goes on whose asker is lost: another coordinator is there sooner."""


@dataclass(frozen=True, slots=True)
class _Materials:
    """What a cell needs, on our disk."""

    inputs: Mapping[str, Path]
    files: Mapping[str, Path]
    scene: Scene | None = None


@dataclass(frozen=True, slots=True)
class _Left:
    """What a cell left behind, in our store."""

    files: tuple[wire.WorkFile, ...] = ()
    omitted: int = 0


class ReplRoom:
    """Serves `/kowalski/repl/1`. One session a task and language, kept until the asker is done."""

    def __init__(
        self,
        host: SessionsHost,
        store: ContentStore,
        requester: Requester,
        nursery: trio.Nursery,
        *,
        hot: Callable[[], Hot],
    ) -> None:
        self._host = host
        self._store = store
        self._requester = requester
        self._nursery = nursery
        self._hot = hot
        self._desk = WorkerDesk()
        self._sessions: dict[worker_desk.SessionKey, ReplSession] = {}
        self._used_at: dict[worker_desk.SessionKey, float] = {}
        self._bound: set[worker_desk.SessionKey] = set()
        self._locks: dict[worker_desk.SessionKey, trio.Lock] = {}
        self._cells: dict[tuple[worker_desk.SessionKey, int], RunningCell] = {}
        self._running = 0
        self._queued = 0

    @property
    def occupancy(self) -> Occupancy:
        return Occupancy(running=self._running, queued=self._queued, slots=self._host.slots)

    @property
    def sessions(self) -> tuple[tuple[str, bool], ...]:
        """The language of each, and whether it may not be made again elsewhere."""
        return tuple((key[1], key in self._bound) for key in self._sessions)

    async def answer(self, conversation: Conversation, request: Message) -> Message:
        match request:
            case wire.CellAsked():
                return await self._cell(conversation, request)
            case wire.SessionClosed():
                return await self._close(request, conversation.peer)
            case _:
                raise RemoteProtocolError(f"{request.KIND} in a repl conversation")

    async def _cell(self, conversation: Conversation, asked: wire.CellAsked) -> wire.CellDone:
        """Run the cell, or join it if it is under way: its last asker may have been lost."""
        if asked.language not in self._host.languages:
            known = ", ".join(sorted(self._host.languages)) or "no language"
            raise RequestRefusedError("unsupported", f"no {asked.language} here, only {known}")
        task = worker_desk.key_of(asked)
        self._hear_term(task, asked.term)
        key = (task, asked.language)
        if not asked.keeps_session:
            key = (task, f"{asked.language} cell {asked.cell}")
        running = self._cells.get((key, asked.cell))
        if running is not None and not running.is_the_same(asked):
            running.stop()
            running = None
        if running is None:
            orphan_s = ORPHAN_S if asked.keeps_session else 0.0
            running = RunningCell(asked, by=conversation.peer, orphan_s=orphan_s)
            self._cells[key, asked.cell] = running
            self._nursery.start_soon(self._work, running, key)
        running.asked_again(asked, conversation.peer)
        return await running.attend(conversation)

    async def _work(self, running: RunningCell, key: worker_desk.SessionKey) -> None:
        """Bring one cell to its end, after those that were asked of its session before."""
        asked, started = running.asked, trio.current_time()
        waiting = True
        lock = self._locks.setdefault(key, trio.Lock())

        async def work() -> wire.CellDone:
            nonlocal waiting
            async with lock:
                materials = await self._materials(running.asked)  # as who leads now asks for it
                self._queued -= 1
                waiting = False
                return await self._run(running, key, materials, started)

        self._queued += 1
        try:
            await running.run(work)
        finally:
            if waiting:
                self._queued -= 1
            if self._cells.get((key, asked.cell)) is running:
                del self._cells[key, asked.cell]
            self._tidy(key)

    def _hear_term(self, task: worker_desk.WorkKey, term: int) -> None:
        self._desk, stale = worker_desk.hear_term(self._desk, task, term)
        if stale is not None:
            raise RequestRefusedError("stale", f"term {term}, {stale.term} was heard")

    async def _materials(self, asked: wire.CellAsked) -> _Materials:
        """Everything on this device's disk; each crosses to a peer once."""
        if wrong := next((each for each in asked.files if not stays_below(each.name)), None):
            raise RequestFailedError("bad_request", f"no place for a file: {wrong.name!r}")
        inputs = {one.name: await self._fetch("input", one) for one in asked.inputs}
        files = {one.name: await self._fetch("file", one) for one in asked.files}
        if asked.keeps_session:
            return _Materials(inputs, files)
        stdin = None
        if asked.stdin is not None:
            stdin = await self._fetch("", wire.Input(name="stdin", content=asked.stdin))
        return _Materials(inputs, files, Scene(asked.name, asked.arguments, stdin))

    async def _fetch(self, what: str, one: wire.Input | wire.WorkFile) -> Path:
        try:
            return await self._store.fetch(one.content, self._requester)
        except PeerUnreachableError as lost:
            raise RequestFailedError("content", f"{what} {one.name}: {lost}".strip()) from lost

    async def _run(
        self,
        running: RunningCell,
        key: worker_desk.SessionKey,
        materials: _Materials,
        started: float,
    ) -> wire.CellDone:
        asked = running.asked
        self._desk, decision = worker_desk.ask(self._desk, asked)
        match decision:
            case Stale(term=term):
                raise RequestRefusedError("stale", f"term {asked.term}, {term} was heard")
            case worker_desk.AnswerAgain(done=done):
                return done
            case worker_desk.SessionLost(ran=ran):
                raise RequestRefusedError("session_lost", f"cells {asked.after} asked, {ran} here")
            case worker_desk.RunAnew():
                await self._drop(key)
                session = await self._open(asked, materials)
                self._sessions[key] = session
                if asked.is_bound:
                    self._bound.add(key)
                self._desk = worker_desk.begin(self._desk, key, running.led)
            case worker_desk.RunOn():
                session = self._sessions[key]
                self._desk = worker_desk.begin(self._desk, key, running.led)
        self._running += 1
        self._used_at[key] = trio.current_time()
        try:
            outcome = await session.run_cell(
                asked.code,
                timeout_s=min(asked.timeout_s, asked.remaining_s),
                on_output=running.on_output,
                on_sub_calls=running.on_sub_calls,
                scene=materials.scene,
                clock=asked.clock,
            )
            self._check_is_open(key, session)
            left = await self._files(session, asked)
            done = await self._done(asked, outcome, left, started)
        except BaseException:
            # Cut off in the middle: nobody knows what this session holds now.
            with trio.CancelScope(shield=True):
                await self._drop(key)
            raise
        finally:
            self._running -= 1
            if key in self._sessions:
                self._used_at[key] = trio.current_time()
        self._finish(running, key, done)
        if key not in self._desk.ran and (used_up := self._forget(key)):
            used_up.retire()
            self._nursery.start_soon(_sweep, used_up)
        return done

    def _finish(
        self, running: RunningCell, key: worker_desk.SessionKey, done: wire.CellDone
    ) -> None:
        desk = worker_desk.begin(self._desk, key, running.led)  # it may be led anew
        self._desk = worker_desk.finish(desk, running.asked, done)

    def _check_is_open(self, key: worker_desk.SessionKey, session: ReplSession) -> None:
        """Nobody may take it for how a cell ended that its session was closed, whoever did that."""
        if self._sessions.get(key) is not session:
            raise RequestRefusedError("session_lost", "it was closed while the cell ran")

    async def _files(self, session: ReplSession, asked: wire.CellAsked) -> _Left:
        """What the cell left in its working folder, kept here for whoever wants it."""
        if not asked.wants_files:
            return _Left()
        collected = await session.collect(files_max=WORK_FILES_MAX, bytes_max=FILES_BYTES_MAX)
        given = {(each.name, each.content.hash) for each in asked.files}
        kept: list[wire.WorkFile] = []
        omitted = collected.omitted
        for each in collected.files:
            try:
                content = await self._store.put(each.data)
            except RequestRefusedError as full:
                log.info("file-not-kept", task=asked.task, name=each.name, why=str(full))
                omitted += 1
                continue
            if (each.name, content.hash) not in given:
                kept.append(wire.WorkFile(name=each.name, content=content))
        return _Left(tuple(kept), omitted)

    async def _open(self, asked: wire.CellAsked, materials: _Materials) -> ReplSession:
        inputs, files = materials.inputs, materials.files
        try:
            return await self._host.open(asked.language, inputs, asked.seed, files)
        except RequestRefusedError as no:
            spared_since = trio.current_time() - SPARED_S
            idle = min(
                (
                    key
                    for key in self._sessions
                    if not self._locks[key].locked() and self._used_at[key] <= spared_since
                ),
                key=lambda key: self._used_at[key],
                default=None,
            )
            if no.reason != "busy" or idle is None:
                raise RequestRefusedError(no.reason, no.detail, RETRY_AFTER_S) from no
        # Its journal makes it replayable, here or elsewhere.
        log.info("session-evicted", task=idle[0][1], language=idle[1])
        await self._drop(idle)
        return await self._host.open(asked.language, inputs, asked.seed, files)

    async def _done(
        self, asked: wire.CellAsked, outcome: CellOutcome, left: _Left, started: float
    ) -> wire.CellDone:
        stdout, stderr = _text(outcome.stdout), _text(outcome.stderr)
        shown_out = head_and_tail(stdout, OUTPUT_CHARS_SHOWN)
        shown_err = head_and_tail(stderr, OUTPUT_CHARS_SHOWN)
        full: ContentRef | None = None
        if shown_out.omitted_chars or shown_err.omitted_chars:
            full = await self._store.put((stdout + stderr).encode())
        answer = outcome.answer
        return wire.CellDone(
            task=asked.task,
            cell=asked.cell,
            status="error" if outcome.status == "cancelled" else outcome.status,
            stdout=shown_out.text,
            stderr=shown_err.text,
            stdout_bytes=outcome.stdout_bytes,
            stderr_bytes=outcome.stderr_bytes,
            full=full,
            value=_shown(outcome.value),
            error=_shown(outcome.error),
            answer=None
            if answer is None
            else wire.AnswerVariable(content=fitting(answer.content), is_ready=answer.ready),
            variables_digest=outcome.variables_digest[:64],
            variables=tuple(
                wire.Variable(name=name, digest=digest)
                for name, digest in list(outcome.variables.items())[: wire.VARIABLES_MAX]
            ),
            clock=outcome.clock[: wire.CLOCK_READINGS_MAX],
            exit_code=outcome.exit_code,
            files=left.files,
            files_omitted=left.omitted,
            is_session_alive=outcome.session_alive,
            duration_s=outcome.duration_s,
            held_s=trio.current_time() - started,
            hot=self._hot(),
        )

    async def _close(self, request: wire.SessionClosed, by: PeerId) -> wire.SessionClosed:
        task = (request.submitter, request.task)
        self._hear_term(task, request.term)
        under_way = [
            running.led for ((whose, _), _), running in self._cells.items() if whose == task
        ]
        if not worker_desk.may_close(self._desk, task, request.term, by, under_way=under_way):
            raise RequestRefusedError("stale", f"term {request.term} is led by another peer")
        for key in [key for key in self._sessions if key[0] == task]:
            await self._drop(key)
        self._desk = worker_desk.forget(self._desk, task)
        return request

    async def _drop(self, key: worker_desk.SessionKey) -> None:
        if session := self._forget(key):
            await session.close()

    def _forget(self, key: worker_desk.SessionKey) -> ReplSession | None:
        """The session, which is nobody's any more; the caller closes it."""
        self._desk = worker_desk.lose(self._desk, key)
        self._used_at.pop(key, None)
        self._bound.discard(key)
        session = self._sessions.pop(key, None)
        self._tidy(key)
        return session

    def _tidy(self, key: worker_desk.SessionKey) -> None:
        """A lock is there while somebody holds it, or a session that the next one will need."""
        if key not in self._sessions and (lock := self._locks.get(key)) and not lock.locked():
            del self._locks[key]

    async def evict_idle(self, *, idle_s: float = IDLE_S_MAX) -> None:
        """Close sessions that nobody has used for `idle_s`, until cancelled."""
        while True:
            await trio.sleep(idle_s / 10)
            now = trio.current_time()
            for key, used_at in list(self._used_at.items()):
                if used_at + idle_s <= now and not self._locks[key].locked():
                    log.info("session-idle", task=key[0][1], language=key[1])
                    await self._drop(key)


async def _sweep(session: ReplSession) -> None:
    """Close it, once its asker has the answer: it need not wait for the broom."""
    try:
        await trio.sleep(SWEPT_AFTER_S)
    finally:
        with trio.CancelScope(shield=True):
            await session.close()


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _shown(text: str | None) -> str | None:
    return None if text is None else head_and_tail(text, OUTPUT_CHARS_SHOWN).text
