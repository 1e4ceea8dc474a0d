"""The cells of one task: one session a language, on one peer, for as long as that peer lasts.

When a session is lost, here or there, its cells are run again elsewhere, in order, with sub-calls
answered from the journal: the model is not asked twice, and the variables come out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog
import trio

from kowalski.mesh.core.blame import Weather, is_busy, is_worth_another_peer
from kowalski.mesh.core.decisions import Decision
from kowalski.mesh.core.placement import Need
from kowalski.mesh.mesh import Mesh
from kowalski.node.core import cell_moves
from kowalski.node.core.lately_here import gone_s
from kowalski.node.core.missed import No, Patience, Presence
from kowalski.node.core.tries import Tries
from kowalski.node.services import repl
from kowalski.node.services.dispatch import Chosen, Work
from kowalski.node.services.placed_work import OnSubCalls, PlacedWork
from kowalski.node.services.placing import NotYetError
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import ContentHash, PeerId, TaskId
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.base import line
from kowalski.protocol.messages.placement import Claim
from kowalski.protocol.messages.repl import (
    CellAsked,
    CellDone,
    Inputs,
    SessionClosed,
)
from kowalski.protocol.messages.task import TaskSpec
from kowalski.protocol.session_past import NOTHING, past_with
from kowalski.rlm.session import UNSUPPORTED, RunCell
from kowalski.rlm.truncation import head_and_tail

log = structlog.get_logger(__name__)

JOIN_AGAIN_S = 0.2
"""Before a peer that was only cut off is asked for the same cell once more."""

OUTPUT_CHARS_MAX = 16_384
"""Of stdout, stderr, value and error together, as journalled."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the task needs from its coordinator."""

    record: Callable[[journal.SessionEvent], None]
    progress: Callable[..., None]
    sub_calls_of: Callable[[int], OnSubCalls]
    """Answers the sub-calls of one run of a cell; raises for nothing."""
    require_lease: Callable[[], None]
    """Asked before anything is sent to a worker; raises `NotYetError`."""
    interrupted: Callable[[], None]
    """A cell is lost that may have asked something; it will ask again elsewhere."""


@dataclass(slots=True)
class _Seat:
    """Where the session of one language lives."""

    peer: PeerId
    why: str
    chosen: Chosen
    ran: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CellLimits:
    spec: TaskSpec
    remaining_s: Callable[[], float]
    claim: Claim = field(default_factory=Claim)


@dataclass(slots=True)
class _Known:
    """What the journal says of cells, for running them again."""

    code: dict[int, tuple[str, str]] = field(default_factory=dict)
    ended: dict[int, journal.CellFinished] = field(default_factory=dict)
    """What each cell left behind, and what it was told of the time."""
    seats: dict[str, PeerId] = field(default_factory=dict)
    """Where the session of each language was last."""
    started: set[tuple[int, PeerId]] = field(default_factory=set)
    """Cells that some peer may have run; asking it again starts nothing new."""


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
        self._known = _Known()
        self._presence = Presence()

    async def close_sessions(self, *, timeout_s: float) -> None:
        """Tell everybody who may hold a session of this task that it is over."""
        async with trio.open_nursery() as nursery:
            for peer in sorted(self._used):
                nursery.start_soon(self._close_sessions_at, peer, timeout_s)

    async def _close_sessions_at(self, peer: PeerId, timeout_s: float) -> None:
        submitter = self._limits.claim.submitter
        closed = SessionClosed(task=self._task, term=self._term(), submitter=submitter)
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
                self._known.started.add((event.cell, event.peer))
                self._known.seats[event.language] = event.peer
                self._used.add(event.peer)
            case journal.CellFinished():
                self._known.ended[event.cell] = event
                language, _ = self._known.code.get(event.cell, ("", ""))
                self._known.seats[language] = event.peer
            case _:
                pass

    async def run(self, effect: RunCell) -> journal.CellFinished | journal.CellFailed:
        """Run one cell on whatever peer will have it; how it ended."""
        tries = Tries()
        moves, cut, patience = 0, -1, Patience(trio.current_time())
        while True:
            seat = self._seats.get(effect.language) or await self._take_seat(effect, tries)
            if seat is None:
                if not await self._wait_for_somebody(effect, tries, patience):
                    return self._nobody(effect, tries)
                continue
            if seat.ran != effect.after and not cell_moves.may_replay(self._limits.spec):
                lost = "the session is lost, and what ran in it may not run again"
                return _failed(effect, "unknown", f"{lost} ({tries.complaint})")
            try:
                return await self._run_when_allowed(seat, effect, tries.complaint)
            except Weather as error:
                self._outlook.interrupted()
                if effect.cell != cut and self._is_only_cut_off(seat, error):
                    cut = effect.cell  # once: it may be under way there, to be joined
                    await trio.sleep(JOIN_AGAIN_S)
                    continue
                self._seats.pop(effect.language, None)
                self._known.seats.pop(effect.language, None)
                if not is_worth_another_peer(error):
                    return _failed(effect, "failed", str(error))
                tries.add(seat.peer, self._mesh.name_of(seat.peer), error)
                then = self._after(effect, error, moves)
                if isinstance(then, cell_moves.GiveUp):
                    return _failed(effect, then.code, tries.complaint)
                if then.is_move:
                    moves += 1
                    self._tell_of_move(effect, tries, error, seat.peer)
                await trio.sleep(then.pause_s)

    def _is_only_cut_off(self, seat: _Seat, error: Exception) -> bool:
        """Whether it was the conversation that broke, and not the peer."""
        return isinstance(error, PeerUnreachableError) and self._mesh.is_routable(seat.peer)

    def _after(
        self, effect: RunCell, error: Exception, moves: int
    ) -> cell_moves.Again | cell_moves.GiveUp:
        cell = cell_moves.Cell(
            has_begun=any(cell == effect.cell for cell, _ in self._known.started),
            has_past=bool(effect.after),
        )
        return cell_moves.after(self._limits.spec, cell, _how(error), moves)

    def _tell_of_move(self, effect: RunCell, tries: Tries, error: Exception, peer: PeerId) -> None:
        if _how(error) == "forgotten":
            del tries.failed[peer]  # it is well, and may have the session anew
        log.info("cell-moved", task=self._task, cell=effect.cell, why=tries.complaint)
        self._outlook.progress(
            "moved", cell=effect.cell, language=effect.language, why=tries.complaint
        )

    async def _wait_for_somebody(self, effect: RunCell, tries: Tries, patience: Patience) -> bool:
        """Wait before looking again, if that may help."""
        if tries.busy:
            self._outlook.progress("note", text=f"cell {effect.cell} waits: {tries.complaint}")
            await trio.sleep(tries.wait_s(self._work.placing.dispatch.uniform()))
            return True
        need = self._work_of(effect.language).need
        wait = self._presence.wait_after(
            No("peers_failed" if tries.failed else "no_peer", are_lost=tries.are_lost),
            effect.language,
            patience,
            need=need,
            candidates=self._mesh.candidates(),
            failover=self._limits.spec.failover,
            now=trio.current_time(),
            here_since=self._mesh.detection.here_since,
            gone_s=gone_s(self._mesh.facts(), need),
        )
        if wait is None:
            return False
        if wait.is_told:
            words = f"cell {effect.cell} waits for a peer that runs {effect.language}"
            self._outlook.progress("note", text=words)
        tries.failed.clear()
        await trio.sleep(wait.seconds)
        return True

    def _nobody(self, effect: RunCell, tries: Tries) -> journal.CellFailed:
        if tries.complaint:
            return _failed(effect, "peers_failed", tries.complaint)
        choices = self._mesh.rank(self._work_of(effect.language).need)
        detail = f"no peer runs {effect.language} ({choices.explain()})"
        return _failed(effect, UNSUPPORTED, detail)

    async def _take_seat(self, effect: RunCell, tries: Tries) -> _Seat | None:
        """Where the session was, if an earlier coordinator has left it there; else the best."""
        dispatch, work = self._work.placing.dispatch, self._work_of(effect.language)
        former = self._known.seats.get(effect.language)
        chosen: Chosen | Decision | None = None
        ran: tuple[int, ...] = ()
        if former is not None and former not in tries.excluded and self._mesh.is_routable(former):
            chosen = dispatch.bound_to(work, former, "its session is there")
            ran = effect.after
        if chosen is None:
            ran = ()
            chosen = await dispatch.choose(
                work, remaining_s=self._limits.remaining_s(), excluding=tries.excluded
            )
        if not isinstance(chosen, Chosen):
            tries.add_refusals(chosen)
            return None
        seat = _Seat(chosen.choice.peer, chosen.decision.why, chosen, ran)
        self._seats[effect.language] = seat
        return seat

    def _work_of(self, language: str) -> Work:
        return Work(
            Need("code", language=language, devices=self._limits.spec.devices),
            claim=self._limits.claim,
            task=self._task,
            content=tuple(one.content for one in self.inputs),
        )

    async def _run_when_allowed(
        self, seat: _Seat, effect: RunCell, complaint: str
    ) -> journal.CellFinished:
        while True:
            try:
                return await self._run_at(seat, effect, complaint)
            except NotYetError as not_yet:
                await not_yet.until()

    async def _run_at(self, seat: _Seat, effect: RunCell, complaint: str) -> journal.CellFinished:
        work = self._work_of(effect.language)
        with self._work.placing.dispatch.sending(work, seat.chosen, learns=False):
            if seat.ran != effect.after:
                await self._replay(seat, effect)
            if (effect.cell, seat.peer) not in self._known.started:
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
            before = self._known.ended.get(cell)
            if before is not None and done.variables_digest != before.variables_digest:
                self._outlook.record(
                    journal.CellDiverged(
                        cell=cell,
                        language=language,
                        peer=seat.peer,
                        names=cell_moves.differing(before.variables, done.variables),
                    )
                )
            if not done.is_session_alive:
                raise RequestFailedError("replay", f"cell {cell} killed its session when run again")
        seat.ran = effect.after

    def _past(self, cells: Sequence[int]) -> ContentHash:
        past = NOTHING
        for cell in cells:
            past = past_with(past, cell, self._known.code[cell][1])
        return past

    async def _ask(
        self, seat: _Seat, cell: int, language: str, code: str, after: tuple[int, ...]
    ) -> CellDone:
        self._used.add(seat.peer)
        before = self._known.ended.get(cell)

        async def asked() -> CellAsked:
            self._outlook.require_lease()
            return CellAsked(
                task=self._task,
                term=self._term(),
                cell=cell,
                language=language,
                code=code,
                inputs=self.inputs,
                after=after,
                past=self._past(after),
                seed=self._limits.spec.seed,
                clock=() if before is None else before.clock,
                timeout_s=self._limits.spec.cell_timeout_s,
                remaining_s=self._limits.remaining_s(),
                claim=seat.chosen.claim,
                is_bound=not cell_moves.may_replay(self._limits.spec),
            )

        def on_output(stream: str, data: bytes) -> None:
            text = data.decode(errors="replace")
            self._outlook.progress(stream, cell=cell, language=language, peer=seat.peer, text=text)

        answer = self._outlook.sub_calls_of(cell)
        return await self._work.run_cell(seat.peer, asked, on_output, answer)


def _how(error: Exception) -> cell_moves.How:
    if is_busy(error):
        return "busy"
    if isinstance(error, RequestRefusedError):
        return "forgotten" if error.reason == "session_lost" else "refused"
    return "lost"


def _failed(effect: RunCell, code: str, detail: str) -> journal.CellFailed:
    return journal.CellFailed(cell=effect.cell, code=code, detail=line(detail))


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
        files=done.files,
        answer=done.answer,
        variables_digest=done.variables_digest,
        variables=done.variables,
        clock=done.clock,
        exit_code=done.exit_code,
        is_session_alive=done.is_session_alive,
        duration_s=done.duration_s,
    )
