"""The door of a worker: who may begin now, who waits, who is told to go elsewhere.

The shell of `core.admission`. It stands before the rooms: `admitting` makes of a room's `answer`
one that begins when there is a slot. A cell that waits for its sub-calls lends its slot to others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import trio

from kowalski.mesh.conversation import Answer, Conversation
from kowalski.mesh.core.prefixes import PrefixBook
from kowalski.mesh.driver import Driver
from kowalski.node.core import admission
from kowalski.node.core.concurrency_limit import ConcurrencyLimit
from kowalski.node.core.job import Cost, Job, JobKind, Request, Speeds, Usual, is_done, request_of
from kowalski.protocol.errors import RequestRefusedError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.inference import CompletionDone, CompletionsDone
from kowalski.protocol.messages.placement import Claim
from kowalski.protocol.messages.repl import SubCallsAnswered, SubCallsAsked
from kowalski.protocol.messages.telemetry import Occupancy

HERE = "here"
"""In a prefix book of our own there is one place."""

LIMITS_MAX = 256


@dataclass(frozen=True, slots=True)
class Resources:
    """What this device has for jobs: slots for one, and the speeds of a model.

    `elsewhere` tells whether some other peer does such a job.
    """

    slots: Callable[[Job], int]
    speeds: Callable[[str], Speeds] = lambda _model: Speeds()
    elsewhere: Callable[[Job], bool] = lambda _job: False


@dataclass(slots=True)
class _Waiter:
    """Most begin at once: only who has to wait needs an event for it."""

    is_answered: bool = False
    refusal: admission.Refusal | None = None
    news: trio.Event | None = None

    def answer(self, refusal: admission.Refusal | None = None) -> None:
        self.is_answered, self.refusal = True, refusal
        if self.news is not None:
            self.news.set()

    async def wait(self) -> None:
        self.news = trio.Event()
        await self.news.wait()


class Gate:
    """`run` keeps its time. All kinds of work of one node pass through one gate."""

    def __init__(self, me: PeerId, resources: Resources) -> None:
        self._me = me
        self._resources = resources
        self._usual = Usual()
        self._prefixes = PrefixBook()
        self._limits: dict[str, ConcurrencyLimit] = {}
        self._tickets = count(1)
        self._reservations = count(1)
        self._waiters: dict[int, _Waiter] = {}
        self._answers: dict[int, admission.Promise | admission.RefuseOffer] = {}
        self._occupied: dict[JobKind, Occupancy] = {}
        """As it was told last: many ask, and few changes."""
        self._driver: Driver[admission.Admission, admission.Event, admission.Effect] = Driver(
            admission.Admission(),
            step=admission.step,
            wake_at=admission.wake_at,
            time_passed=admission.TimePassed(),
            perform=self._perform,
        )

    async def run(self) -> None:
        """Expire reservations and send away those who have waited too long, until cancelled."""
        await self._driver.run()

    @property
    def paused(self) -> str:
        """Why no work of others is taken now; empty when it is."""
        return self._driver.state.paused

    def pause(self, why: str) -> None:
        """Take no work of others from now on, or take it again where `why` is empty."""
        if why != self.paused:
            self._driver.handle(admission.Paused(why))

    @property
    def jobs(self) -> int:
        """All that runs or waits here."""
        return self._driver.state.jobs

    def drain(self, *, is_on: bool) -> None:
        """Take nothing on from now on, or take work again."""
        self._driver.handle(admission.Draining(is_on))

    def occupancy(self, kind: JobKind, slots: int) -> Occupancy:
        """Of all lanes of a kind, which has so many slots in all."""
        lanes = [
            lane
            for name, lane in self._driver.state.lanes.items()
            if name.partition(" ")[0] == kind
        ]
        told = (sum(lane.busy for lane in lanes), sum(lane.queued for lane in lanes), slots)
        known = self._occupied.get(kind)
        if known is None or (known.running, known.queued, known.slots) != told:
            known = self._occupied[kind] = Occupancy(running=told[0], queued=told[1], slots=slots)
        return known

    # --- offers ---------------------------------------------------------------------------------

    def offer(
        self, asker: PeerId, job: Job, claim: Claim, *, remaining_s: float, reserve_s: float
    ) -> Promised:
        """Promise when a job would begin, and hold its place for a while.

        Raises:
            RequestRefusedError: `busy`, `paused` or `draining`.
        """
        cached = self._cached_tokens(job)
        cost = self._usual.cost(job, self._speeds(job), cached)
        number = next(self._reservations)
        wish = self._wish(asker, job, claim, cost, remaining_s, slots=self._resources.slots(job))
        self._driver.handle(admission.OfferWanted(number, wish, reserve_s))
        answer = self._answers.pop(number)
        if isinstance(answer, admission.RefuseOffer):
            raise _refused(answer.refusal)
        lane = self._driver.state.lanes.get(job.lane)
        return Promised(
            reservation=number,
            wait_s=answer.wait_s,
            cost=cost,
            cached_tokens=cached,
            occupancy=Occupancy(
                running=lane.busy if lane else 0,
                queued=lane.queued - (reserve_s > 0) if lane else 0,
                slots=wish.slots,
            ),
        )

    def give_back(self, reservation: int) -> None:
        self._driver.handle(admission.GivenBack(reservation))

    # --- work -----------------------------------------------------------------------------------

    def admitting(self, answer: Answer) -> Answer:
        """`answer`, begun when there is a slot for it; what takes no slot is answered at once."""

        async def admitted(conversation: Conversation, message: Message) -> Message:
            request = request_of(message)
            if request is None:
                return await answer(conversation, message)
            asked_at = trio.current_time()
            ticket = next(self._tickets)
            waiter = self._waiters[ticket] = _Waiter()
            try:
                slots = self._arrive(ticket, conversation.peer, request)
                began_at = asked_at
                if not waiter.is_answered:
                    await waiter.wait()
                    began_at = trio.current_time()
                    left_s = max(0.0, request.remaining_s - (began_at - asked_at))
                    message = message.model_copy(update={"remaining_s": left_s})
                if waiter.refusal is not None:
                    raise _refused(waiter.refusal)
                if request.job.kind == "code":  # only a cell waits for what it asks of others
                    conversation = _Lending(conversation, Slot(self._driver.handle, ticket))
                done = await answer(conversation, message)
                self._learn(request, done, slots, began_at)
                return done
            finally:
                del self._waiters[ticket]
                self._driver.handle(admission.Left(ticket))

        return admitted

    def _arrive(self, ticket: int, asker: PeerId, request: Request) -> int:
        """How many slots there are for such work, were it not slower in company."""
        job = request.job
        slots = self._resources.slots(job)
        cost = self._usual.cost(job, self._speeds(job), self._cached_tokens(job))
        wish = self._wish(
            asker,
            job,
            request.claim,
            cost,
            request.remaining_s,
            slots=slots,
            is_bound=self._is_bound(request),
        )
        self._driver.handle(admission.Arrived(ticket, wish, request.claim.reservation))
        return slots

    def _is_bound(self, request: Request) -> bool:
        """Whether it is done here even if we are about to leave."""
        if not request.goes_on or not self._driver.state.is_draining:
            return request.goes_on
        return request.is_bound or not self._resources.elsewhere(request.job)

    def _wish(
        self,
        asker: PeerId,
        job: Job,
        claim: Claim,
        cost: Cost,
        remaining_s: float,
        *,
        slots: int,
        is_bound: bool = False,
    ) -> admission.Wish:
        flow = claim.submitter or asker
        return admission.Wish(
            lane=job.lane,
            slots=self._allowed(job, slots),
            asker=asker,
            flow=flow,
            priority=claim.priority,
            cost_s=cost.seconds,
            remaining_s=remaining_s,
            is_own=asker == flow == self._me,
            is_bound=is_bound,
        )

    def _allowed(self, job: Job, slots: int) -> int:
        """Those slots that there are, or fewer where work gets slower by having company."""
        limit = self._limits.get(job.lane)
        if limit is None:
            return slots
        limit = self._limits[job.lane] = limit.resize(slots)
        return min(slots, limit.limit)

    def _speeds(self, job: Job) -> Speeds:
        return self._resources.speeds(job.model) if job.model else Speeds()

    def _cached_tokens(self, job: Job) -> int:
        found = self._prefixes.find(job.prefixes, trio.current_time())
        return 0 if found is None else found[1]

    def _learn(self, request: Request, done: Message, slots: int, began_at: float) -> None:
        if not is_done(done):
            return
        job, now = request.job, trio.current_time()
        took_s = now - began_at
        self._usual = self._usual.learn(job, took_s, done)
        if isinstance(done, CompletionDone | CompletionsDone):
            self._prefixes.read(HERE, request.prefixes, now)
            self._limit_by_pace(job, took_s, done.usage.completion_tokens, slots)

    def _limit_by_pace(self, job: Job, took_s: float, tokens: int, slots: int) -> None:
        lane = self._driver.state.lanes.get(job.lane)
        if lane is None or tokens < 1 or slots < 1:
            return
        limit = self._limits.get(job.lane) or ConcurrencyLimit(slots, slots)
        if len(self._limits) > LIMITS_MAX:
            self._limits.clear()
        self._limits[job.lane] = limit.resize(slots).learn(took_s / tokens, lane.busy)

    def _perform(self, effect: admission.Effect) -> None:
        match effect:
            case admission.Start(ticket=ticket):
                self._waiters[ticket].answer()
            case admission.Refuse(ticket=ticket, refusal=refusal):
                self._waiters[ticket].answer(refusal)
            case admission.Promise(reservation=number) | admission.RefuseOffer(reservation=number):
                self._answers[number] = effect


@dataclass(frozen=True, slots=True)
class Promised:
    """What was promised, and how full its lane was."""

    reservation: int
    wait_s: float
    cost: Cost
    cached_tokens: int
    occupancy: Occupancy


@dataclass(frozen=True, slots=True)
class Slot:
    """What somebody who has begun holds."""

    _handle: Callable[[admission.Event], None]
    _ticket: int

    def lend(self) -> None:
        self._handle(admission.Lent(self._ticket))

    def take_back(self) -> None:
        self._handle(admission.Returned(self._ticket))


class _Lending:
    """A conversation whose slot is lent to others while a cell waits for its sub-calls."""

    def __init__(self, conversation: Conversation, slot: Slot) -> None:
        self._conversation = conversation
        self._slot = slot
        self._batches: set[int] = set()

    @property
    def peer(self) -> PeerId:
        return self._conversation.peer

    @property
    def is_taken_back(self) -> bool:
        return self._conversation.is_taken_back

    async def send(self, message: Message, *, more_follows: bool = False) -> None:
        if isinstance(message, SubCallsAsked):
            if not self._batches:
                self._slot.lend()
            self._batches.add(message.batch)
        await self._conversation.send(message, more_follows=more_follows)

    async def receive(self) -> Message:
        message = await self._conversation.receive()
        match message:
            case SubCallsAnswered(batch=batch, left=0) if batch in self._batches:
                self._batches.remove(batch)
                if not self._batches:
                    self._slot.take_back()
            case _:
                pass
        return message


def _refused(refusal: admission.Refusal) -> RequestRefusedError:
    return RequestRefusedError(refusal.reason, refusal.detail, refusal.retry_after_s)
