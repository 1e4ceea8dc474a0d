"""Probing, and being probed: the shell around `core.failure_detector`.

It carries the machine's questions over the streams of `/kowalski/swim/1`, and answers those of
others. What a verdict means for tasks is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

import structlog
import trio

from kowalski.mesh.conversation import Asker, Conversation
from kowalski.mesh.core import failure_detector as machine
from kowalski.mesh.core import failure_detector_events as events
from kowalski.mesh.core.failure_detector_events import MemberChanged
from kowalski.mesh.core.failure_detector_state import FailureDetector, Params, new
from kowalski.mesh.core.membership import Claim, Membership
from kowalski.mesh.driver import Driver
from kowalski.mesh.incarnations import IncarnationBook
from kowalski.mesh.sleep_watch import SleepWatch
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages import swim
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.trust import KnownMember

log = structlog.get_logger(__name__)

SWIM_PROTOCOL = "/kowalski/swim/1"

TELL_TIMEOUT_S = 2.0
"""For news and comparisons, of which nothing depends on one peer."""

GOODBYE_S = 0.5

SILENCE = 0.99
"""Of the time we listen: what ends sooner was no silence, but said to us by our own side."""

NO = (RequestRefusedError, RequestFailedError, RemoteProtocolError)

M = TypeVar("M", bound=Message)

Fact = (
    events.KeepIncarnation
    | MemberChanged
    | events.PeerMissed
    | events.PartitionSuspected
    | events.PartitionOver
    | events.CheckConnections
)


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """What failure detection needs to know of the mesh around it, and what it tells that."""

    admits: Callable[[PeerId], bool]
    """Whether a peer belongs: claims about others are not even looked at."""
    known_members: Callable[[], tuple[KnownMember, ...]]
    introduce: Callable[[Iterable[KnownMember]], None]
    on_changed: Callable[[MemberChanged], None]
    on_missed: Callable[[PeerId], None]
    on_spoke: Callable[[PeerId], None]
    """Hears of each question that a peer asks us."""
    on_measured: Callable[[PeerId, float], None]
    """Hears of each answer to a probe, and the seconds that it took."""
    on_back: Callable[[], None]
    """Hears that we were away: asleep, or stopped."""


class FailureDetection:
    def __init__(
        self,
        me: PeerId,
        asker: Asker,
        around: Neighbourhood,
        incarnations: IncarnationBook,
        *,
        nursery: trio.Nursery,
        sleep_watch: SleepWatch,
        params: Params | None = None,
    ) -> None:
        self._me = me
        self._asker = asker
        self._around = around
        self._incarnations = incarnations
        self._nursery = nursery
        self._sleep_watch = sleep_watch
        self.here_since = trio.current_time()
        """When this node began, or was back from a sleep or a long stop."""
        self._numbers = count(1)
        self._answers: dict[int, tuple[Claim, ...]] = {}
        self._tables: dict[int, events.AnswerSync] = {}
        self._helping: dict[int, _Helping] = {}
        self._telling = 0
        self._has_told = trio.Event()
        self._driver: Driver[FailureDetector, events.Event, events.Effect] = Driver(
            new(me, incarnations.begin(), params, now=self.here_since),
            step=machine.step,
            wake_at=machine.wake_at,
            time_passed=events.TimePassed(),
            perform=self._perform,
        )

    # --- for the mesh around --------------------------------------------------------------------

    @property
    def state(self) -> FailureDetector:
        return self._driver.state

    @property
    def table(self) -> Membership:
        return self.state.table

    def handle(self, event: events.Event) -> None:
        """Tell the machine what happened."""
        self._driver.handle(event)

    async def run(self) -> None:
        """Probe, until cancelled."""
        await self._driver.run()

    async def leave(self) -> None:
        """Say goodbye to some members, and wait half a second at most for them to hear it."""
        self.handle(events.Leave())
        with trio.move_on_after(GOODBYE_S):
            while self._telling:
                self._has_told = trio.Event()
                await self._has_told.wait()

    # --- being asked ----------------------------------------------------------------------------

    async def answer(self, conversation: Conversation, request: Message) -> Message:
        """Serve the conversation, to members."""
        peer, number = conversation.peer, next(self._numbers)
        self._around.on_spoke(peer)
        match request:
            case swim.Probe(claims=claims):
                self.handle(events.ProbeHeard(number, peer, self._read(claims)))
                return swim.ProbeAnswered(claims=_wire(self._answers.pop(number)))
            case swim.ClaimsTold(claims=claims):
                self.handle(events.Told(number, peer, self._read(claims)))
                return swim.ClaimsHeard(claims=_wire(self._answers.pop(number)))
            case swim.SyncAsked(digest=digest):
                self.handle(events.SyncAsked(number, peer, int(digest, 16)))
                return self._compared(self._tables.pop(number))
            case swim.HelpAsked():
                return await self._help(number, peer, request)
            case _:
                raise RemoteProtocolError(f"{request.KIND} in a conversation about who is there")

    async def _help(self, number: int, peer: PeerId, asked: swim.HelpAsked) -> Message:
        helping = self._helping[number] = _Helping()
        try:
            claims = self._read(asked.claims)
            self.handle(events.HelpAsked(number, peer, asked.target, asked.within_s, claims))
            await helping.is_over.wait()
        finally:
            del self._helping[number]
        return swim.HelpAnswered(has_reached=helping.has_reached, claims=_wire(helping.claims))

    def _compared(self, table: events.AnswerSync) -> Message:
        members = self._around.known_members() if table.rows else ()
        rows = _wire(table.rows)
        return swim.SyncAnswered(digest=f"{table.digest:016x}", rows=rows, members=members)

    def _read(self, claims: Iterable[swim.MemberClaim]) -> tuple[Claim, ...]:
        """What is said of members; of others it is of no interest."""
        admits = self._around.admits
        return tuple(
            Claim(one.peer, one.state, one.incarnation, one.accuser)
            for one in claims
            if one.peer == self._me or admits(one.peer)
        )

    # --- performing what the machine decides ----------------------------------------------------

    def _perform(self, effect: events.Effect) -> None:
        match effect:
            case events.Probe():
                self._look_at_the_clock()
                self._nursery.start_soon(self._probe, effect)
            case events.LookAtTheClock():
                self._look_at_the_clock()
            case events.AskHelp():
                self._nursery.start_soon(self._ask_help, effect)
            case events.Tell():
                self._telling += 1
                self._nursery.start_soon(self._tell, effect)
            case events.AskSync():
                self._nursery.start_soon(self._sync, effect)
            case events.Answer(number=number, claims=claims):
                self._answers[number] = claims
            case events.AnswerSync(number=number):
                self._tables[number] = effect
            case events.AnswerHelp(number=number):
                if helping := self._helping.get(number):  # else its asker has left
                    helping.hear(effect)
            case _:
                self._note(effect)

    def _note(self, fact: Fact) -> None:
        match fact:
            case events.KeepIncarnation(incarnation=incarnation):
                self._incarnations.keep(incarnation)
            case MemberChanged(peer=peer, state=state, incarnation=incarnation):
                log.info("member-changed", peer=peer, state=state, incarnation=incarnation)
                self._around.on_changed(fact)
            case events.PeerMissed(peer=peer):
                log.debug("probe-missed", peer=peer)
                self._around.on_missed(peer)
            case events.PartitionSuspected(suspects=suspects, others=others):
                log.warning("partition-suspected", suspects=suspects, others=others)
            case events.PartitionOver():
                log.info("partition-over")
            case events.CheckConnections():
                log.info("was-away")
                self.here_since = trio.current_time()
                self._around.on_back()

    def _look_at_the_clock(self) -> None:
        if (away_s := self._sleep_watch.away_s()) > 0.0:
            log.info("slept", seconds=round(away_s, 1))
            self.handle(events.Woke(away_s))

    async def _probe(self, probe: events.Probe) -> None:
        sent_at = trio.current_time()
        try:
            answer = await self._ask(
                probe.peer,
                swim.Probe(claims=_wire(probe.claims)),
                swim.ProbeAnswered,
                timeout_s=probe.timeout_s,
            )
        except PeerUnreachableError as gone:
            # Silence is for the machine to judge; it has its own clock for that.
            if trio.current_time() - sent_at < SILENCE * probe.timeout_s:
                log.debug("probe-failed", peer=probe.peer, why=str(gone))
                self.handle(events.ProbeFailed(probe.number))
        except NO as odd:  # whoever says no is there
            log.debug("probe-refused", peer=probe.peer, why=str(odd))
            self.handle(events.ProbeAnswered(probe.number, ()))
        else:
            self._around.on_measured(probe.peer, trio.current_time() - sent_at)
            self.handle(events.ProbeAnswered(probe.number, self._read(answer.claims)))

    async def _ask_help(self, ask: events.AskHelp) -> None:
        sent_at = trio.current_time()
        question = swim.HelpAsked(
            target=ask.target, within_s=ask.timeout_s, claims=_wire(ask.claims)
        )
        try:
            answer = await self._ask(
                ask.helper, question, swim.HelpAnswered, timeout_s=ask.timeout_s
            )
        except (PeerUnreachableError, *NO) as no:
            log.debug("help-failed", peer=ask.helper, why=str(no))
            if trio.current_time() - sent_at < SILENCE * ask.timeout_s:
                self.handle(events.HelpFailed(ask.number))
        else:
            claims = self._read(answer.claims)
            self.handle(events.HelpAnswered(ask.number, answer.has_reached, claims))

    async def _tell(self, tell: events.Tell) -> None:
        try:
            told = swim.ClaimsTold(claims=_wire(tell.claims))
            answer = await self._ask(tell.peer, told, swim.ClaimsHeard, timeout_s=TELL_TIMEOUT_S)
        except (PeerUnreachableError, *NO) as no:
            log.debug("not-told", peer=tell.peer, why=str(no))
        else:
            self.handle(events.Heard(tell.peer, self._read(answer.claims)))
        finally:
            self._telling -= 1
            self._has_told.set()

    async def _sync(self, ask: events.AskSync) -> None:
        try:
            answer = await self._ask(
                ask.peer,
                swim.SyncAsked(digest=f"{ask.digest:016x}"),
                swim.SyncAnswered,
                timeout_s=TELL_TIMEOUT_S,
            )
        except (PeerUnreachableError, *NO) as no:
            log.debug("not-synced", peer=ask.peer, why=str(no))
            return
        self._around.introduce(answer.members)
        rows = self._read(answer.rows)
        self.handle(events.SyncAnswered(ask.peer, int(answer.digest, 16), rows))

    async def _ask(self, peer: PeerId, question: Message, reply: type[M], *, timeout_s: float) -> M:
        return await self._asker.request(peer, SWIM_PROTOCOL, question, reply, timeout_s=timeout_s)


@dataclass(slots=True)
class _Helping:
    """A peer that waits to hear whether we reach another."""

    has_reached: bool = False
    claims: tuple[Claim, ...] = ()
    is_over: trio.Event = field(default_factory=trio.Event)

    def hear(self, answer: events.AnswerHelp) -> None:
        self.has_reached, self.claims = answer.has_reached, answer.claims
        self.is_over.set()


def _wire(claims: Iterable[Claim]) -> tuple[swim.MemberClaim, ...]:
    return tuple(
        swim.MemberClaim(
            peer=one.peer, state=one.state, incarnation=one.incarnation, accuser=one.accuser
        )
        for one in claims
    )
