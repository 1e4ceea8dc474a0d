"""Choosing peers for work, and learning from how it went. One for a node.

The owner of what we know of peers ourselves: breakers, paces, who has read which beginnings, and
how much may be tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from itertools import count

import trio

from kowalski.mesh.candidates import Look
from kowalski.mesh.core import offers
from kowalski.mesh.core.blame import Weather, blame
from kowalski.mesh.core.breakers import Breakers
from kowalski.mesh.core.connectivity import MemberConnected, MemberDisconnected
from kowalski.mesh.core.decisions import Decision
from kowalski.mesh.core.experience import NOISE_S, Experience, Outcome
from kowalski.mesh.core.hedging import Hedging
from kowalski.mesh.core.placement import Candidate, Choice, Kind, Need, Ranking, load, rank
from kowalski.mesh.core.prefixes import Prefix, PrefixBook
from kowalski.mesh.core.retry_budget import RetryBudget
from kowalski.mesh.core.shortlist import expectation, is_short, straight_to
from kowalski.mesh.mesh import Mesh
from kowalski.node.core.decision_log import DecisionLog
from kowalski.node.core.under_way import UnderWay, most_overdue
from kowalski.node.services.asking_offers import AskingOffers
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.placement import Claim, OfferAsked

WORKS_KEPT = 256

SILENT_S_MIN = 1.0
SILENT_TIMES = 3.0
"""Who has not answered after so many times its promise, when its asker gives up, has failed."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is wanted, as far as the choice of a peer goes. `task`: on whose behalf, if on any."""

    need: Need
    claim: Claim = field(default_factory=Claim)
    task: TaskId | None = None
    prompt_tokens: int | None = None
    max_tokens: int | None = None
    prefixes: tuple[Prefix, ...] = ()
    content: tuple[ContentRef, ...] = ()

    def offer_asked(self, remaining_s: float, reserve_s: float) -> OfferAsked:
        return OfferAsked(
            kind=self.need.kind,
            language=self.need.language,
            model=self.need.model,
            claim=self.claim,
            prompt_tokens=self.prompt_tokens,
            max_tokens=self.max_tokens,
            prefixes=tuple(one.digest for one in self.prefixes),
            content=tuple(one.hash for one in self.content),
            reserve_s=reserve_s,
            remaining_s=remaining_s,
        )


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Chosen:
    """A peer for the work, and what to send it with. `release` gives back the place reserved."""

    choice: Choice
    decision: Decision
    claim: Claim
    promised_s: float
    crowding: float
    release: Callable[[], None] = _nothing


class Dispatch:
    """Its questions for offers live in `nursery`, each for two seconds at most."""

    def __init__(self, mesh: Mesh, nursery: trio.Nursery) -> None:
        self._mesh = mesh
        self._nursery = nursery
        self._draws = count()
        self.breakers = Breakers(mesh.me)
        self._budgets: dict[Kind, RetryBudget] = {}
        self._hedgings: dict[str, Hedging] = {}
        self._experience = Experience()
        self._prefixes = PrefixBook()
        self._under_way: dict[tuple[PeerId, str], list[UnderWay]] = {}
        self.decisions = DecisionLog[tuple[Work, Decision]](count_as=_counted)
        """The last choices, with what they were made for."""
        mesh.listen(self._heed)

    # --- choosing -------------------------------------------------------------------------------

    def candidates(
        self, need: Need, prefixes: tuple[Prefix, ...] = (), *, glances: bool = False
    ) -> tuple[Candidate, ...]:
        """The mesh as it stands in the view, with what we know better; of a large one, a sample."""
        now = trio.current_time()
        found = self._prefixes.find((one.digest for one in prefixes), now)
        reader = None if found is None else PeerId(found[0])
        look = Look(need, reader) if glances else None
        return tuple(
            self._known_better(one, need, now, holds_prefix=one.peer == reader)
            for one in self._mesh.candidates(look)
        )

    def _known_better(
        self, one: Candidate, need: Need, now: float, *, holds_prefix: bool
    ) -> Candidate:
        work = need.work
        overdue = most_overdue(self._under_way.get((one.peer, work), ()), now)
        return one.known_better(
            self._experience.unit_s(one.peer, work),
            self._experience.slowness(one.peer, work, now, overdue=overdue),
            is_admitted=self.breakers.admits((one.peer, need.kind), now),
            holds_prefix=holds_prefix,
        )

    def rank(
        self,
        need: Need,
        *,
        excluding: frozenset[PeerId] = frozenset(),
        prefixes: tuple[Prefix, ...] = (),
        glances: bool = False,
    ) -> Ranking:
        return rank(need, self.candidates(need, prefixes, glances=glances), excluding=excluding)

    async def choose(
        self,
        work: Work,
        *,
        remaining_s: float,
        excluding: frozenset[PeerId] = frozenset(),
        reserve_s: float = offers.RESERVE_S,
        always_asks: bool = False,
    ) -> Chosen | Decision:
        """A peer for the work, its place reserved; the decision alone where there is none.

        `always_asks` for offers, also where the choice is clear: to show what they would be.
        """
        ranking = self.rank(
            work.need, excluding=excluding, prefixes=work.prefixes, glances=not always_asks
        )
        usual_s = self._experience.usual_unit_s(work.need.work)
        if not ranking.choices:
            return self._decide(
                work,
                Decision(
                    trio.current_time(), work.need, "nobody", ranking, None, ranking.explain()
                ),
            )
        if not always_asks and len(ranking.choices) == 1:
            return self._straight(work, ranking, ranking.choices[0], "only", usual_s)
        if not always_asks and is_short(work.need, usual_s):
            choice = straight_to(work.need, ranking, usual_s, self.draw())
            return self._straight(work, ranking, choice, "direct", usual_s)
        return await self._by_offers(work, ranking, remaining_s, reserve_s)

    def slots(self, need: Need) -> int:
        """All that there are for such work, at peers that could do it."""
        choices = self.rank(need).choices
        return sum(choice.candidate.occupancy[need.kind].slots for choice in choices)

    def bound_to(self, work: Work, peer: PeerId, why: str) -> Chosen | None:
        """This peer and no other, where it can do the work at all; not by its merits, but `why`."""
        ranking = self.rank(work.need)
        choice = next((one for one in ranking.choices if one.peer == peer), None)
        if choice is None:
            return None
        decision = Decision(trio.current_time(), work.need, "bound", ranking, peer, why)
        return Chosen(
            choice, self._decide(work, decision), work.claim, promised_s=0.0, crowding=1.0
        )

    def draw(self) -> str:
        """Names the next draw of chance: another one for each node and each time."""
        return f"{self._mesh.me} {next(self._draws)}"

    def uniform(self) -> float:
        digest = blake2b(self.draw().encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big") / 2**32

    def _decide(self, work: Work, decision: Decision) -> Decision:
        self.decisions.add(work.task, (work, decision))
        return decision

    def _straight(
        self, work: Work, ranking: Ranking, choice: Choice, way: str, usual_s: float | None
    ) -> Chosen:
        expected_s = expectation(work.need, usual_s)(choice)
        decision = Decision(
            trio.current_time(),
            work.need,
            "only" if way == "only" else "direct",
            ranking,
            choice.peer,
            choice.why,
            expected_s=expected_s,
        )
        self._decide(work, decision)
        return Chosen(
            choice,
            decision,
            work.claim,
            promised_s=expectation(work.need, usual_s, by_its_word=True)(choice),
            crowding=max(1.0, load(choice.candidate, work.need.kind)),
        )

    async def _by_offers(
        self, work: Work, ranking: Ranking, remaining_s: float, reserve_s: float
    ) -> Chosen | Decision:
        begun = offers.begin(
            work.need,
            ranking,
            self.draw(),
            trio.current_time(),
            content_bytes=tuple(one.bytes_total for one in work.content),
        )
        asked = work.offer_asked(remaining_s, reserve_s)
        asking = AskingOffers(self._mesh, self._nursery, asked)
        state, end = await asking.until_decided(begun)
        match end:
            case offers.Take(choice=choice):
                return self._taken(work, state, end, partial(asking.give_back, choice.peer))
            case offers.NobodyFree():
                return self._refused_by_all(work, state, end)

    def _taken(
        self, work: Work, state: offers.Choosing, take: offers.Take, release: Callable[[], None]
    ) -> Chosen:
        decision = Decision(
            trio.current_time(),
            work.need,
            "offers",
            state.ranking,
            take.choice.peer,
            f"{take.choice.why}; {take.why}",
            offers=state.offers,
            refusals=state.refusals,
            expected_s=take.expected_s,
        )
        self._decide(work, decision)
        claim = work.claim.model_copy(update={"reservation": take.offer.reservation})
        service_s = max(take.offer.service_s, NOISE_S)
        return Chosen(
            take.choice,
            decision,
            claim,
            promised_s=offers.promise_s(take.choice, take.offer),
            crowding=1.0 + take.offer.wait_s / service_s,
            release=release,
        )

    def _refused_by_all(
        self, work: Work, state: offers.Choosing, end: offers.NobodyFree
    ) -> Chosen | Decision:
        """Where not one of them is only full, the best is asked all the same: it will say why."""
        if end.retry_after_s is None and state.ranking.best is not None:
            usual_s = self._experience.usual_unit_s(work.need.work)
            return self._straight(work, state.ranking, state.ranking.best, "direct", usual_s)
        decision = Decision(
            trio.current_time(),
            work.need,
            "offers",
            state.ranking,
            None,
            end.why,
            refusals=state.refusals,
            retry_after_s=end.retry_after_s,
        )
        return self._decide(work, decision)

    # --- sending and learning -------------------------------------------------------------------

    def ask(self, work: Work) -> None:
        """Somebody wants this for the first time: a share of it may be tried again."""
        now, kind = trio.current_time(), work.need.kind
        self._budgets[kind] = self._budgets.get(kind, RetryBudget()).ask(now)
        hedging = self._hedgings.get(work.need.work) or self._new_hedging()
        self._hedgings[work.need.work] = hedging.ask()

    def _new_hedging(self) -> Hedging:
        if len(self._hedgings) >= WORKS_KEPT:
            self._hedgings.clear()
        return Hedging()

    def may_try_again(self, kind: Kind) -> bool:
        """Take one more try out of the budget, if there is one."""
        budget = self._budgets.get(kind, RetryBudget()).spend(trio.current_time())
        if budget is None:
            return False
        self._budgets[kind] = budget
        return True

    def hedge_after_s(self, chosen: Chosen) -> float | None:
        """When to ask a second peer as well; None for never."""
        hedging = self._hedgings.get(chosen.decision.need.work)
        expected_s = chosen.decision.expected_s or 0.0
        return None if hedging is None else hedging.after_s(expected_s)

    def may_hedge(self, need: Need) -> bool:
        """Take one hedge out of the budget, if there is one and the mesh is not full."""
        able = [choice.candidate for choice in self.rank(need, glances=True).choices]
        hedging = self._hedgings.get(need.work)
        if hedging is None or len(able) < 2:
            return False
        mean_load = sum(load(one, need.kind) for one in able) / len(able)
        spent = hedging.spend(mean_load)
        if spent is None:
            return False
        self._hedgings[need.work] = spent
        return True

    def admits(self, chosen: Chosen) -> bool:
        """Whether the breaker still lets it through: the one probe may be under way by now."""
        key = chosen.choice.peer, chosen.decision.need.kind
        is_ignored = not chosen.choice.candidate.is_admitted
        return is_ignored or self.breakers.admits(key, trio.current_time())

    @contextmanager
    def sending(self, work: Work, chosen: Chosen, *, learns: bool = True) -> Iterator[Sent]:
        """Send the work, and take in how it goes.

        `learns` False: how long it takes tells nothing, such as of a cell that asks and waits.
        """
        need, peer = work.need, chosen.choice.peer
        now = trio.current_time()
        key = (peer, need.kind)
        passage = self.breakers.send(key, now)
        flights = self._under_way.setdefault((peer, need.work), [])
        flight = UnderWay(now, chosen.promised_s, need.kind, passage)
        flights.append(flight)
        sent = Sent(now)
        verdict = "abandoned"
        try:
            with self._mesh.sending(peer, need.kind):
                yield sent
            verdict = "done"
        except Weather as error:
            verdict = blame(error)
            raise
        finally:
            flights.remove(flight)
            if not flights:
                self._under_way.pop((peer, need.work), None)
            chosen.release()
            ended_at = trio.current_time()
            took_s = ended_at - now
            is_own = chosen.choice.candidate.is_self  # whom we need not doubt
            if verdict == "abandoned" and sent.is_given_up and not (sent.is_answered or is_own):
                patience_s = max(SILENT_S_MIN, SILENT_TIMES * chosen.promised_s)
                verdict = "silent" if took_s > patience_s else verdict
            if verdict == "silent":
                self._mesh.doubt(peer)
            match verdict:
                case "failed" | "silent":
                    self.breakers.fail(key, passage, ended_at)
                case "abandoned":
                    self.breakers.abandon(key, passage)
                case _:
                    self.breakers.succeed(key, passage)
            if verdict == "done" and learns:
                self._learn(work, chosen, sent, took_s, ended_at)

    def probes(self) -> list[tuple[PeerId, Kind]]:
        """Where requests are under way that find out whether a breaker may close, one by one."""
        return [
            (peer, flight.kind)
            for (peer, _), flights in self._under_way.items()
            for flight in flights
            if self.breakers.is_probe((peer, flight.kind), flight.passage)
        ]

    @property
    def under_way(self) -> int:
        """Requests that have been sent and have not ended."""
        return sum(map(len, self._under_way.values()))

    def _learn(self, work: Work, chosen: Chosen, sent: Sent, took_s: float, now: float) -> None:
        need, peer = work.need, chosen.choice.peer
        outcome = Outcome(
            units=sent.units if sent.units is not None else need.units,
            took_s=took_s,
            promised_s=chosen.promised_s,
            crowding=chosen.crowding,
        )
        self._experience = self._experience.learn(peer, need.work, outcome, now)
        self._prefixes.read(peer, work.prefixes, now)
        first_s = took_s if sent.answered_at is None else sent.answered_at - sent.at
        if hedging := self._hedgings.get(need.work):
            self._hedgings[need.work] = hedging.answer(first_s)

    def _heed(self, change: MemberConnected | MemberDisconnected) -> None:
        if isinstance(change, MemberDisconnected):
            self.forget(change.peer)

    def forget(self, peer: PeerId) -> None:
        """It is gone; who comes back under its name may be quite well."""
        self._experience = self._experience.forget(peer)
        self.breakers.forget(peer)


def _counted(made: tuple[Work, Decision]) -> tuple[Kind, str, str]:
    """Its kind of work, its way, and what came of it: as choices are counted."""
    _, decision = made
    nothing = "nobody" if decision.way == "nobody" else "full"
    outcome = "chosen" if decision.chosen is not None else nothing
    return decision.need.kind, decision.way, outcome


@dataclass(slots=True)
class Sent:
    """One piece of work on its way; its sender tells what it sees.

    `units` it turned out to be, where that was not known before; `is_given_up`: it was cancelled
    because the time was over, not because somebody changed their mind.
    """

    at: float
    units: float | None = None
    answered_at: float | None = None
    is_given_up: bool = False

    @property
    def is_answered(self) -> bool:
        return self.answered_at is not None

    def answer(self) -> None:
        """A first sign of the answer has come."""
        if self.answered_at is None:
            self.answered_at = trio.current_time()
