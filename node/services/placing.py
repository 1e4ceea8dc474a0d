"""One piece of work until it is done: the best peer, then the next; a line where all are full.

A second peer is asked as well when the first takes unusually long, where that does no harm. Which
peer is `Dispatch`'s to say, what is worth another try `core.tries`'; a budget that all work of a
kind shares bounds how much is tried again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog
import trio

from kowalski.mesh.core.blame import Weather, is_busy, is_worth_another_peer
from kowalski.mesh.core.deadlines import passed_on_s
from kowalski.mesh.core.placement import Choice, Need, round_trip_s
from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.core.missed import LOOK_S, is_somebody_missed
from kowalski.node.core.tries import Tries
from kowalski.node.services.dispatch import Chosen, Dispatch, Sent, Work
from kowalski.node.services.turns import Turns
from kowalski.protocol.errors import RequestFailedError, RequestRefusedError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.placement import Claim

log = structlog.get_logger(__name__)

T = TypeVar("T")

TRIES_LOOK_S = 0.5

HELD = "it has the answer, or is at it"


@dataclass(frozen=True, slots=True)
class Placed:
    """Who did it, why that one, and after how many tries."""

    peer: PeerId
    name: str
    why: str
    attempts: int


PassedOver = Callable[[frozenset[PeerId]], frozenset[PeerId]]
"""Who is to get none of it now, where those named have failed at it."""


def _nobody_is(_failed: frozenset[PeerId]) -> frozenset[PeerId]:
    return frozenset()


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Attempt:
    """What the work is sent to one peer with.

    `speak` is to be called when something of the answer has come; where it returns False another
    peer was faster, and nothing of this one counts.
    """

    choice: Choice
    claim: Claim
    deadline: float
    rtt_s: float
    sent: Sent
    is_first_to_speak: Callable[[], bool] = _always

    @property
    def peer(self) -> PeerId:
        return self.choice.peer

    @property
    def remaining_s(self) -> float:
        """What to tell the peer, if it is told now: opening a stream takes of it as well."""
        return passed_on_s(self.deadline - trio.current_time(), self.rtt_s)

    def speak(self) -> bool:
        self.sent.answer()
        return self.is_first_to_speak()


Do = Callable[[Attempt], Awaitable[T]]


class NotYetError(Exception):
    """What makes a request as it is sent may raise it: nothing may be sent before `until` returns.

    It is no peer's fault. Who waits for it leaves the peer alone meanwhile, and chooses again.
    """

    def __init__(self, until: Callable[[], Awaitable[None]]) -> None:
        super().__init__("it may not be sent now")
        self.until = until


class Placing:
    def __init__(self, me: PeerId, dispatch: Dispatch) -> None:
        self._me = me
        self.dispatch = dispatch
        self._turns = Turns()

    async def place(
        self,
        work: Work,
        do: Do[T],
        *,
        remaining_s: float,
        on_restart: Callable[[str], None],
        may_hedge: bool = False,
        holder: PeerId | None = None,
        passed_over: PassedOver = _nobody_is,
    ) -> tuple[T, Placed]:
        """Do it on the best peer; `on_restart` says why another one begins.

        `may_hedge`: it may be done twice at the same time. `holder`: who has done it already, or is
        at it; asked first, where it can be. `passed_over`: asked where nobody else could do it.
        Where too many tries were made lately, work of a task waits for its next one: with one peer,
        much of a batch is lost at a time.

        Raises:
            RequestRefusedError: `no_peer`; `busy`, all the time that there was.
            RequestFailedError: every peer that was tried failed; `timeout`.
        """
        tries = Tries(are_patient=work.task is not None)
        deadline = trio.current_time() + remaining_s
        self.dispatch.ask(work)
        with trio.move_on_at(deadline):
            while True:
                chosen: Chosen | None = None
                bound, holder = holder, None
                if bound is not None:
                    chosen = self.dispatch.bound_to(work, bound, HELD)
                if chosen is None:
                    chosen = await self._bind(work, tries, deadline, passed_over)
                race = _Race(self, work, do, chosen, deadline=deadline, tries=tries)
                try:
                    if may_hedge and chosen.decision.way not in ("only", "bound"):
                        result = await race.run()
                    else:
                        result = await self.send(work, chosen, do, deadline)
                except NotYetError as not_yet:
                    holder = bound  # it has not been asked
                    await not_yet.until()
                except Weather as error:
                    if not is_worth_another_peer(error):
                        raise
                    await self._failed(work.need, tries, race.last, error, on_restart)
                else:
                    return result, placed(race.last, tries)
        if tries.is_full:
            raise RequestRefusedError("busy", f"for {remaining_s:.3g} s; {tries.complaint}")
        raise RequestFailedError("timeout", f"no answer within {remaining_s:.3g} s")

    async def send(
        self,
        work: Work,
        chosen: Chosen,
        do: Do[T],
        deadline: float,
        is_first_to_speak: Callable[[], bool] = _always,
    ) -> T:
        """Do the work on the peer chosen; raises `Weather` and `NotYetError`."""
        rtt_s = round_trip_s(chosen.choice.candidate)
        try:
            # Who had it already says nothing of how long such work takes.
            learns = chosen.decision.way != "bound"
            with self.dispatch.sending(work, chosen, learns=learns) as sent:
                attempt = Attempt(
                    chosen.choice,
                    chosen.claim,
                    deadline,
                    0.0 if chosen.choice.candidate.is_self else rtt_s,
                    sent,
                    is_first_to_speak,
                )
                try:
                    return await do(attempt)
                except trio.Cancelled:
                    sent.is_given_up = trio.current_time() >= deadline
                    raise
        finally:
            self._turns.freed(work.need.work)

    async def _failed(
        self,
        need: Need,
        tries: Tries,
        chosen: Chosen,
        error: Exception,
        on_restart: Callable[[str], None],
    ) -> None:
        """Take it in, and wait a little before the next try, if there may be one."""
        choice = chosen.choice
        tries.add(choice.peer, choice.name, error)
        if is_busy(error):
            return
        log.info("placed-elsewhere", peer=choice.peer, kind=need.kind, why=str(error))
        on_restart(tries.complaint)
        if tries.are_too_many:
            raise tries.outcome("")
        if not await self._is_anybody_left(need, tries):
            return  # no try is spent on nobody, as the next choice will say
        while not self.dispatch.may_try_again(need.kind):
            if not tries.are_patient:
                complaint = f"{tries.complaint}; too many tries lately"
                raise RequestFailedError("peers_failed", complaint)
            await trio.sleep(TRIES_LOOK_S)
        await trio.sleep(tries.pause_s(self.dispatch.uniform()))

    async def _is_anybody_left(self, need: Need, tries: Tries) -> bool:
        """Whether somebody could be tried next; who is only silent is waited for by the patient."""
        began = trio.current_time()
        while not self.dispatch.rank(need, excluding=frozenset(tries.failed)).choices:
            is_missed = is_somebody_missed(need, self.dispatch.candidates(need), tries.failed)
            waited_s = trio.current_time() - began
            if not tries.are_worth_a_wait(waited_s, is_somebody_missed=is_missed):
                return False
            await trio.sleep(LOOK_S)
        return True

    # --- a peer that has room -------------------------------------------------------------------

    async def _bind(
        self, work: Work, tries: Tries, deadline: float, passed_over: PassedOver
    ) -> Chosen:
        """A peer that will take the work; waits in the line where all are full."""
        name, claim = work.need.work, work.claim
        if not self._turns.is_taken(name):
            chosen = await self._choose(work, tries, deadline, passed_over)
            if chosen is not None:
                return chosen
        flow = claim.submitter or self._me
        async with self._turns.turn(name, flow, claim.priority):
            while True:
                if tries.busy:
                    wait_s = tries.wait_s(self.dispatch.uniform())
                    await self._turns.wait_freed(name, wait_s)
                chosen = await self._choose(work, tries, deadline, passed_over)
                if chosen is not None:
                    return chosen

    async def _choose(
        self, work: Work, tries: Tries, deadline: float, passed_over: PassedOver
    ) -> Chosen | None:
        """A peer; None where somebody who could is full.

        Raises:
            RequestRefusedError, RequestFailedError: nobody is left who could.
        """
        waits = passed_over(frozenset(tries.failed))
        excluding = tries.excluded | waits
        while True:
            left_s = deadline - trio.current_time()
            found = await self.dispatch.choose(work, remaining_s=left_s, excluding=excluding)
            if isinstance(found, Chosen):
                if self.dispatch.admits(found):
                    return found
                found.release()
                excluding |= {found.choice.peer}
                continue
            tries.add_refusals(found)
            if not tries.may_wait and waits:
                excluding, waits = excluding - waits, frozenset()
                continue
            if not tries.may_wait:
                raise tries.outcome(_nobody(work.need, found.why))
            return None


@dataclass(frozen=True, slots=True)
class _End(Generic[T]):
    """How one of a race ended: with one result, or an error."""

    peer: PeerId
    results: tuple[T, ...] = ()
    error: Exception | None = None


class _Race(Generic[T]):
    """One peer, and a second one if it takes long; the first to say something goes on alone.

    `last` is the one that ended last, and whose result or error it was.
    """

    def __init__(
        self,
        placing: Placing,
        work: Work,
        do: Do[T],
        first: Chosen,
        *,
        deadline: float,
        tries: Tries,
    ) -> None:
        self.last = first
        self._placing = placing
        self._work = work
        self._do = do
        self._deadline = deadline
        self._tries = tries
        self._chosen: dict[PeerId, Chosen] = {}
        self._running: dict[PeerId, trio.CancelScope] = {}
        self._fastest: PeerId | None = None

    async def run(self) -> T:
        """Raises `Weather` if all that ran have failed, `NotYetError` if nothing may be sent."""
        ends_in, ends_out = trio.open_memory_channel[_End[T]](2)
        async with open_plain_nursery() as nursery:
            self._start(nursery, self.last, ends_in)
            hedge_after_s = self._placing.dispatch.hedge_after_s(self.last)
            if hedge_after_s is not None:
                nursery.start_soon(self._hedge, nursery, hedge_after_s, ends_in)
            while True:
                end = await ends_out.receive()
                self.last = self._chosen[end.peer]
                self._running.pop(end.peer, None)
                if end.error is None:
                    nursery.cancel_scope.cancel()
                    return end.results[0]
                if not self._running or not is_worth_another_peer(end.error):
                    nursery.cancel_scope.cancel()
                    raise end.error
                if not isinstance(end.error, NotYetError):
                    self._tries.add(end.peer, self.last.choice.name, end.error)

    def _start(
        self, nursery: trio.Nursery, chosen: Chosen, ends: trio.MemorySendChannel[_End[T]]
    ) -> None:
        peer = chosen.choice.peer
        self._chosen[peer] = chosen
        scope = self._running[peer] = trio.CancelScope()
        nursery.start_soon(self._run_at, chosen, scope, ends)

    async def _run_at(
        self, chosen: Chosen, scope: trio.CancelScope, ends: trio.MemorySendChannel[_End[T]]
    ) -> None:
        peer = chosen.choice.peer
        with scope:
            try:
                result = await self._placing.send(
                    self._work, chosen, self._do, self._deadline, lambda: self._is_fastest(peer)
                )
            except (*Weather, NotYetError) as error:
                await ends.send(_End(peer, error=error))
            else:
                await ends.send(_End(peer, (result,)))

    def _is_fastest(self, peer: PeerId) -> bool:
        """Whether it is the first to say something, or was; the others stop."""
        if self._fastest is None:
            self._fastest = peer
            for other in [other for other in self._running if other != peer]:
                self._running.pop(other).cancel()
        return self._fastest == peer

    async def _hedge(
        self, nursery: trio.Nursery, after_s: float, ends: trio.MemorySendChannel[_End[T]]
    ) -> None:
        await trio.sleep(after_s)
        dispatch = self._placing.dispatch
        if not self._is_open() or not dispatch.may_hedge(self._work.need):
            return
        tried = frozenset(self._chosen) | self._tries.excluded
        left_s = self._deadline - trio.current_time()
        found = await dispatch.choose(self._work, remaining_s=left_s, excluding=tried)
        if isinstance(found, Chosen):
            if self._is_open() and dispatch.admits(found):
                log.info("hedged", peer=found.choice.peer, work=self._work.need.work)
                self._start(nursery, found, ends)
            else:
                found.release()

    def _is_open(self) -> bool:
        """Whether nobody has said anything yet, and somebody may."""
        return self._fastest is None and bool(self._running)


def placed(chosen: Chosen, tries: Tries) -> Placed:
    choice = chosen.choice
    return Placed(choice.peer, choice.name, chosen.decision.why, tries.number)


def _nobody(need: Need, why: str) -> str:
    match need.kind:
        case "code":
            return f"no peer runs {need.language} ({why})"
        case "inference" if need.model:
            return f"no peer has model {need.model} ({why})"
        case "inference":
            return f"no peer has a model ({why})"
        case "folding":
            return f"no peer folds ({why})"
