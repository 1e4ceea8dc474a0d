"""The cells of one task: one session a language, on one peer, for as long as that peer lasts.

When a session is lost, here or there, its cells are run again elsewhere, in order, with sub-calls
answered from the journal: the model is not asked twice, and the variables come out the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count

import structlog
import trio

from kowalski.mesh.core.blame import Weather, is_busy, is_worth_another_peer
from kowalski.mesh.core.placement import Need
from kowalski.mesh.mesh import Mesh
from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.core.tries import Tries
from kowalski.node.services import repl
from kowalski.node.services.dispatch import Chosen, Work
from kowalski.node.services.placed_work import PlacedWork
from kowalski.protocol import ids
from kowalski.protocol.errors import RequestFailedError, RequestRefusedError
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.base import line
from kowalski.protocol.messages.placement import Claim
from kowalski.protocol.messages.repl import (
    CellAsked,
    CellDone,
    Inputs,
    SessionClosed,
    SubCall,
    SubCallResult,
)
from kowalski.rlm.session import UNSUPPORTED, RunCell
from kowalski.rlm.truncation import head_and_tail

log = structlog.get_logger(__name__)

MOVES_MAX = 4
"""Peers that one cell may be moved to."""

OUTPUT_CHARS_MAX = 16_384
"""Of stdout, stderr, value and error together, as journalled."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the task needs from its coordinator."""

    record: Callable[[journal.SessionEvent], None]
    progress: Callable[..., None]
    sub_call: Callable[[SubCall], Awaitable[journal.SubCallAnswered]]
    """Answers with cell and ordinal 0; they are filled in here."""
    until_lease_held: Callable[[], Awaitable[None]]
    """Nothing is sent to a worker before this has returned."""


@dataclass(slots=True)
class _Seat:
    """Where the session of one language lives."""

    peer: PeerId
    why: str
    chosen: Chosen
    ran: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CellLimits:
    timeout_s: float
    seed: int
    remaining_s: Callable[[], float]
    claim: Claim = field(default_factory=Claim)


@dataclass(slots=True)
class _Known:
    """What the journal says of cells, for running them again."""

    code: dict[int, tuple[str, str]] = field(default_factory=dict)
    answered: dict[tuple[int, int], journal.SubCallAnswered] = field(default_factory=dict)
    digests: dict[int, str] = field(default_factory=dict)


class TaskCells:
    def __init__(
        self,
        task: TaskId,
        term: Callable[[], int],
        *,
        mesh: Mesh,
        work: PlacedWork,
        outlook: Outlook,
        limits: CellLimits,
    ) -> None:
        self._task = task
        self._term = term
        self.inputs: Inputs = ()
        self._mesh = mesh
        self._work = work
        self._outlook = outlook
        self._limits = limits
        self._seats: dict[str, _Seat] = {}
        self._used: set[PeerId] = set()
        self._started: set[tuple[int, PeerId]] = set()
        """In this term; asking again one that was busy starts nothing new."""
        self._known = _Known()

    async def close_sessions(self, *, timeout_s: float) -> None:
        """Tell everybody who may hold a session of this task that it is over."""
        async with trio.open_nursery() as nursery:
            for peer in sorted(self._used):
                nursery.start_soon(self._close_sessions_at, peer, timeout_s)

    async def _close_sessions_at(self, peer: PeerId, timeout_s: float) -> None:
        closed = SessionClosed(task=self._task, term=self._term())
        try:
            await self._mesh.request(
                peer, repl.PROTOCOL, closed, SessionClosed, timeout_s=timeout_s
            )
        except Weather as error:
            # Idle sessions are evicted over there; a deposed coordinator's word is refused.
            log.debug("session-not-closed", task=self._task, peer=peer, why=str(error))

    def hear(self, event: journal.SessionEvent) -> None:
        """Learn from the journal, before and while the task runs."""
        match event:
            case journal.CellStarted():
                self._known.code[event.cell] = (event.language, event.code)
                self._used.add(event.peer)
            case journal.CellFinished():
                self._known.digests[event.cell] = event.variables_digest
            case journal.SubCallAnswered():
                self._known.answered[event.cell, event.ordinal] = event
            case _:
                pass

    async def run(self, effect: RunCell) -> journal.CellFinished | journal.CellFailed:
        """Run one cell on whatever peer will have it; how it ended."""
        tries = Tries()
        moves = 0
        while moves <= MOVES_MAX:
            seat = self._seats.get(effect.language)
            seat = seat or await self._take_seat(effect.language, tries)
            if seat is None:
                if not tries.busy:
                    break
                self._outlook.progress("note", text=f"cell {effect.cell} waits: {tries.complaint}")
                await trio.sleep(tries.wait_s(self._work.placing.dispatch.uniform()))
                continue
            try:
                return await self._run_at(seat, effect, tries.complaint)
            except Weather as error:
                del self._seats[effect.language]
                if not is_worth_another_peer(error):
                    return journal.CellFailed(
                        cell=effect.cell, code="failed", detail=line(str(error))
                    )
                tries.add(seat.peer, self._mesh.name_of(seat.peer), error)
                if is_busy(error):
                    continue
                moves += 1
                if _is_only_forgotten(error):
                    del tries.failed[seat.peer]
                log.info("cell-moved", task=self._task, cell=effect.cell, why=tries.complaint)
                self._outlook.progress(
                    "moved", cell=effect.cell, language=effect.language, why=tries.complaint
                )
        if tries.complaint:
            return journal.CellFailed(
                cell=effect.cell, code="peers_failed", detail=line(tries.complaint)
            )
        choices = self._mesh.rank(Need("code", language=effect.language))
        detail = f"no peer runs {effect.language} ({choices.explain()})"
        return journal.CellFailed(cell=effect.cell, code=UNSUPPORTED, detail=line(detail))

    async def _take_seat(self, language: str, tries: Tries) -> _Seat | None:
        found = await self._work.placing.dispatch.choose(
            self._work_of(language),
            remaining_s=self._limits.remaining_s(),
            excluding=tries.excluded,
        )
        if not isinstance(found, Chosen):
            tries.add_refusals(found)
            return None
        seat = _Seat(found.choice.peer, found.decision.why, found)
        self._seats[language] = seat
        return seat

    def _work_of(self, language: str) -> Work:
        return Work(
            Need("code", language=language),
            claim=self._limits.claim,
            task=self._task,
            content=tuple(one.content for one in self.inputs),
        )

    async def _run_at(self, seat: _Seat, effect: RunCell, complaint: str) -> journal.CellFinished:
        work = self._work_of(effect.language)
        with self._work.placing.dispatch.sending(work, seat.chosen, learns=False):
            if seat.ran != effect.after:
                await self._replay(seat, effect)
            if (effect.cell, seat.peer) not in self._started:
                self._started.add((effect.cell, seat.peer))
                why = f"{seat.why}; after {complaint}" if complaint else seat.why
                self._outlook.record(
                    journal.CellStarted(
                        cell=effect.cell,
                        language=effect.language,
                        code=effect.code,
                        peer=seat.peer,
                        why=line(why),
                    )
                )
            done = await self._ask(seat, effect.cell, effect.language, effect.code, effect.after)
            seat.ran = (*effect.after, effect.cell)
            if not done.is_session_alive:
                del self._seats[effect.language]
            return _finished(done, seat.peer)

    async def _replay(self, seat: _Seat, effect: RunCell) -> None:
        """Bring a new session to where the lost one was."""
        seat.ran = ()
        for at, cell in enumerate(effect.after):
            language, code = self._known.code[cell]
            self._outlook.progress("replayed", cell=cell, language=language, peer=seat.peer)
            done = await self._ask(seat, cell, language, code, effect.after[:at])
            if done.variables_digest != self._known.digests.get(cell, done.variables_digest):
                self._outlook.progress(
                    "diverged",
                    cell=cell,
                    language=language,
                    peer=seat.peer,
                    why="run again, this cell left other variables behind than the first time",
                )
            if not done.is_session_alive:
                raise RequestFailedError("replay", f"cell {cell} killed its session when run again")
        seat.ran = effect.after

    async def _ask(
        self, seat: _Seat, cell: int, language: str, code: str, after: tuple[int, ...]
    ) -> CellDone:
        self._used.add(seat.peer)
        asked = CellAsked(
            task=self._task,
            term=self._term(),
            cell=cell,
            language=language,
            code=code,
            inputs=self.inputs,
            after=after,
            seed=self._limits.seed,
            timeout_s=self._limits.timeout_s,
            remaining_s=self._limits.remaining_s(),
            claim=seat.chosen.claim,
        )
        ordinals = count()

        def answer(calls: tuple[SubCall, ...]) -> Awaitable[tuple[SubCallResult, ...]]:
            # Numbered as they come, whatever order they are answered in.
            return self._answer_all(cell, [(next(ordinals), call) for call in calls])

        def on_output(stream: str, data: bytes) -> None:
            text = data.decode(errors="replace")
            self._outlook.progress(stream, cell=cell, language=language, peer=seat.peer, text=text)

        await self._outlook.until_lease_held()
        return await self._work.run_cell(seat.peer, asked, on_output, answer)

    async def _answer_all(
        self, cell: int, calls: list[tuple[int, SubCall]]
    ) -> tuple[SubCallResult, ...]:
        """All at once, in order."""
        results: dict[int, SubCallResult] = {}

        async def answer(ordinal: int, call: SubCall) -> None:
            results[ordinal] = await self._answer_one(cell, ordinal, call)

        async with open_plain_nursery() as nursery:
            for ordinal, call in calls:
                nursery.start_soon(answer, ordinal, call)
        return tuple(results[ordinal] for ordinal, _ in calls)

    async def _answer_one(self, cell: int, ordinal: int, call: SubCall) -> SubCallResult:
        known = self._known.answered.get((cell, ordinal))
        if known is None or known.prompt != ids.content_hash(call.prompt.encode()):
            answered = await self._outlook.sub_call(call)
            known = answered.model_copy(update={"cell": cell, "ordinal": ordinal})
            self._outlook.record(known)
        return SubCallResult(text=known.text, error=known.error)


def _is_only_forgotten(error: Exception) -> bool:
    """The peer is well; it just does not hold the session any more."""
    return isinstance(error, RequestRefusedError) and error.reason == "session_lost"


def _finished(done: CellDone, peer: PeerId) -> journal.CellFinished:
    parts = (done.stdout, done.value and f"{done.value}\n", done.stderr, done.error)
    output = "".join(part for part in parts if part)
    return journal.CellFinished(
        cell=done.cell,
        peer=peer,
        status=done.status,
        output=head_and_tail(output, OUTPUT_CHARS_MAX).text,
        output_bytes=done.stdout_bytes + done.stderr_bytes,
        full=done.full,
        answer=done.answer,
        variables_digest=done.variables_digest,
        exit_code=done.exit_code,
        is_session_alive=done.is_session_alive,
        duration_s=done.duration_s,
    )
