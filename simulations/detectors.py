"""Failure detectors by the thousand, on one heap of (time, event): the cores and nothing else.

Every node is the pure machine of `mesh.core.failure_detector`. A message is an object that arrives
later. A stream is reliable: loss shows as delay, a retransmission at a time, and a cut link or a
dead process as silence. What is kept of the past are the changes that the nodes saw. Tables of
members share what they have in common (`tables`). Others may put what they do on the same heap.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import heappop, heappush
from math import inf
from typing import Protocol

from kowalski.mesh.core import failure_detector as detector
from kowalski.mesh.core import membership
from kowalski.mesh.core.failure_detector_events import (
    Answer,
    AnswerHelp,
    AnswerSync,
    AskHelp,
    AskSync,
    CheckConnections,
    ConnectionLost,
    Effect,
    Event,
    Heard,
    HelpAnswered,
    HelpAsked,
    HelpFailed,
    KeepIncarnation,
    LookAtTheClock,
    MemberChanged,
    MemberMet,
    PartitionOver,
    PartitionSuspected,
    PeerMissed,
    Probe,
    ProbeAnswered,
    ProbeFailed,
    ProbeHeard,
    SpokenBy,
    SyncAnswered,
    SyncAsked,
    Tell,
    TimePassed,
    Told,
)
from kowalski.mesh.core.failure_detector_state import (
    FailureDetector,
    Params,
    interval_s,
    new,
    sync_s,
)
from kowalski.mesh.core.membership import Member
from kowalski.protocol.ids import PeerId
from simulations.tables import SharedRows

RTO_S = 0.2
"""What Linux waits at least before it sends a lost segment again; it doubles each time."""

RETRIES_MAX = 6

NOBODY = -1
"""In the place of a node: something that happens to none in particular."""

MISSES_MAX = 2
"""In a row, after which a node sends nothing any more to another (`connectivity`)."""


OWN_TURNS_UP_TO = 2048
"""So many nodes have turns in an order of their own each. In a larger mesh all have one order, and
begin it anywhere: 10^8 turns would not fit, and each node is probed as often, by as different ones.
"""

MEETING_S = 5.0
"""In which a node that starts again meets all the others, in no order."""


@dataclass(frozen=True, slots=True)
class Weather:
    """Of every link. `loss` is that of segments; streams turn it into delay."""

    delay_s_min: float = 0.0005
    delay_s_max: float = 0.004
    loss: float = 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """What one node came to think of another, and when."""

    at: float
    observer: int
    about: int
    state: membership.State
    incarnation: int


class Onlooker(Protocol):
    """Hears what nodes, by their numbers, notice of each other beside what they change."""

    def answered(self, observer: int, about: int) -> None: ...

    def missed(self, observer: int, about: int) -> None: ...

    def spoken_to(self, observer: int, by: int) -> None: ...


@dataclass(slots=True)
class Node:
    state: FailureDetector
    is_up: bool = True
    is_refusing: bool = False
    """While it is down: its machine says so to whoever calls, as after a crash of the process."""
    armed_at: float = inf
    stalled_until: float = -inf
    held: list[Event] = field(default_factory=list)
    """What arrived during a stall."""
    misses: dict[PeerId, int] = field(default_factory=dict)
    """Signs of life of others that this node missed in a row."""


class Detectors:
    """`count` nodes that have met. Time begins at 0 and goes on in `run`."""

    def __init__(
        self,
        count: int,
        *,
        seed: int = 0,
        weather: Weather | None = None,
        params: Params | None = None,
    ) -> None:
        self.now = 0.0
        self.changes: list[Change] = []
        self.messages = 0
        self.unroutable: list[tuple[float, int, int]] = []
        """When which node missed a second sign of life in a row of which other."""
        self.partitions: list[tuple[float, int]] = []
        self.on_change: Callable[[Change], None] = lambda _change: None
        self.onlooker: Onlooker | None = None
        """Looks on from now on; nothing is different for it."""
        self.weather = weather or Weather()
        self._random = random.Random(seed)
        self._dice_aside = random.Random(seed)
        self._heap: list[tuple[float, int, int, Event | Callable[[], None] | None]] = []
        self._order = 0
        self._questions: dict[int, tuple[int, int]] = {}
        """Who asked the question of this number, and under which number of its own."""
        self._arrivals: dict[tuple[int, int], float] = {}
        self._blocked: set[tuple[int, int]] = set()
        self._islands: dict[int, int] = {}
        """Who is on which of them; those who are not are on the mainland."""
        self.peers = [PeerId(f"peer{number:08d}") for number in range(count)]
        self._numbers = {peer: number for number, peer in enumerate(self.peers)}
        self.nodes = [Node(one) for one in self._met_long_ago(params)]
        for number in range(count):
            self._arm(number)

    def _met_long_ago(self, params: Params | None) -> Iterable[FailureDetector]:
        """Everybody knows everybody, there is no news, and they take turns in no common order."""
        common = dict.fromkeys(self.peers, Member("alive", 1, 0.0))
        digest = 0
        for peer in self.peers:
            digest ^= membership.new(peer, 1).digest
        order = list(self.peers)
        self._random.shuffle(order)
        shared = tuple(order)
        for peer in self.peers:
            state = new(peer, 1, params)
            others = SharedRows(common, peer)
            table = replace(state.table, members=others, living=len(others), digest=digest)
            state = replace(state, table=table)
            if len(order) > OWN_TURNS_UP_TO:
                turns, turn = shared, self._random.randrange(len(shared))
            else:
                self._random.shuffle(order)
                turns, turn = tuple(one for one in order if one != peer), 0
            if others:
                state = replace(
                    state,
                    turns=turns,
                    turn=turn,
                    probe_at=interval_s(state) * self._random.random(),
                    sync_at=sync_s(state) * self._random.random(),
                )
            yield state

    # --- what happens to them -------------------------------------------------------------------

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Have something else happen then; it may look at the nodes, and at `now`."""
        self._order += 1
        heappush(self._heap, (self.now + seconds, self._order, NOBODY, act))

    def crash(self, number: int, *, is_silent: bool = True) -> None:
        """End a node. Silently, as when the power goes, or with its connections closing."""
        self.nodes[number].is_up = False
        self.nodes[number].is_refusing = not is_silent
        if not is_silent:
            for other in range(len(self.nodes)):
                if other != number and self.nodes[other].is_up:
                    self._post(
                        self.now + self._delay_s(), other, ConnectionLost(self.peers[number])
                    )

    def restart(self, number: int) -> None:
        """Start it again, with an incarnation raised from what it had; it asks one who is up."""
        before = self.nodes[number].state
        after = new(before.me, before.table.incarnation + 1, before.params)
        self.nodes[number] = Node(after)
        self.meet_all(number)

    def meet_all(self, number: int) -> None:
        """Let a node that is up meet all others that are, within some seconds."""
        for other in range(len(self.nodes)):
            if other != number and self.nodes[other].is_up:
                self.after(
                    MEETING_S * self._random.random(), partial(self.reconnect, number, other)
                )

    def stall(self, number: int, seconds: float) -> None:
        """Let a node stand still, as a stopped process does; what is sent to it waits."""
        node = self.nodes[number]
        node.stalled_until = node.armed_at = self.now + seconds
        self._post(self.now + seconds, number, None)

    def block(self, senders: Iterable[int], receivers: Iterable[int]) -> None:
        """Let what those send to these vanish, in this direction alone."""
        receivers = tuple(receivers)
        self._blocked |= {(one, other) for one in senders for other in receivers if one != other}

    def cut(self, ones: Iterable[int], others: Iterable[int]) -> None:
        ones, others = tuple(ones), tuple(others)
        self.block(ones, others)
        self.block(others, ones)

    def cut_off(self, number: int) -> None:
        """Let nobody hear this one any more, nor it anybody."""
        self._islands[number] = number + 1

    def mend(self, number: int | None = None) -> None:
        """End what was blocked and cut; or only what one was cut off from."""
        if number is not None:
            self._islands.pop(number, None)
            return
        self._islands.clear()
        self._blocked.clear()

    def is_blocked(self, sender: int, receiver: int) -> bool:
        islands = self._islands
        return (sender, receiver) in self._blocked or (
            bool(islands) and islands.get(sender) != islands.get(receiver)
        )

    def reconnect(self, one: int, other: int) -> None:
        """Let two nodes meet on a new connection, if they are there."""
        if not (self.nodes[one].is_up and self.nodes[other].is_up) or self.is_blocked(one, other):
            return
        for here, there in ((one, other), (other, one)):
            state = self.nodes[there].state
            self._post(self.now, here, MemberMet(state.me, state.table.incarnation))

    def ask_aside(self, asker: int, asked: int, then: Callable[[], None]) -> None:
        """Have a node ask another whether it is there, aside from all else: `then`, if it is."""
        if self.is_blocked(asker, asked):
            return

        def answer() -> None:
            node = self.nodes[asked]
            if node.stalled_until > self.now:
                self.after(node.stalled_until - self.now, answer)
            elif node.is_up and not self.is_blocked(asked, asker):
                self.after(self._delay_s(self._dice_aside), then)

        self.after(self._delay_s(self._dice_aside), answer)

    def tell(self, number: int, event: Event) -> None:
        self._post(self.now, number, event)

    # --- time -----------------------------------------------------------------------------------

    def run(self, until: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, number, event = heappop(heap)
            if callable(event):
                event()
                continue
            node = self.nodes[number]
            if not node.is_up:
                continue
            if node.stalled_until > self.now:
                if event is not None:
                    node.held.append(event)
                continue
            if event is None:
                if self.now < node.armed_at:
                    continue  # there is a later timer in its place
                self._tick(number, node)
            else:
                self._step(number, node, event)
            self._arm(number)
        self.now = until

    def _tick(self, number: int, node: Node) -> None:
        node.armed_at = inf
        # After a stall the timer speaks first: reading what has arrived takes a moment.
        if detector.wake_at(node.state) <= self.now:
            self._step(number, node, TimePassed())
        held, node.held = node.held, []
        for event in held:
            self._step(number, node, event)

    def _arm(self, number: int) -> None:
        node = self.nodes[number]
        at = detector.wake_at(node.state)
        if at < node.armed_at and at < inf:
            node.armed_at = at
            self._post(max(at, self.now), number, None)

    def _post(self, at: float, number: int, event: Event | None) -> None:
        self._order += 1
        heappush(self._heap, (at, self._order, number, event))

    def _delay_s(self, dice: random.Random | None = None) -> float:
        dice = dice or self._random
        weather, delay_s, rto_s = self.weather, 0.0, RTO_S
        for _ in range(RETRIES_MAX):
            if dice.random() >= weather.loss:
                break
            delay_s += rto_s
            rto_s *= 2
        return delay_s + dice.uniform(weather.delay_s_min, weather.delay_s_max)

    def _post_message(self, sender: int, receiver: int, event: Event) -> float:
        # In order, as on a stream: what follows a lost segment waits for it.
        at = self.now + self._delay_s()
        if self.weather.loss:
            at = max(at, self._arrivals.get((sender, receiver), 0.0))
            self._arrivals[sender, receiver] = at
        self._post(at, receiver, event)
        return at

    # --- what they do ---------------------------------------------------------------------------

    def _step(self, number: int, node: Node, event: Event) -> None:
        if self.onlooker is not None and isinstance(event, SpokenBy):
            self.onlooker.spoken_to(number, self._numbers[event.peer])
        node.state, effects = detector.step(node.state, event, self.now)
        for effect in effects:
            self._perform(number, node, effect)

    def _ask(
        self,
        number: int,
        peer: PeerId,
        question: Callable[[int], Event],
        refusal: Event | None = None,
        asked: int = 0,
    ) -> None:
        receiver = self._numbers[peer]
        self.messages += 1
        if self.is_blocked(number, receiver):
            return
        if self.nodes[receiver].is_up:
            self._order += 1
            self._questions[self._order] = (number, asked)
            self._post_message(number, receiver, question(self._order))
        elif self.nodes[receiver].is_refusing and refusal is not None:
            self._post(self.now, number, refusal)

    def _perform(self, number: int, node: Node, effect: Effect) -> None:
        match effect:
            case Probe() | Tell() | AskHelp() | AskSync():
                self._question(number, node.state.me, effect)
            case Answer() | AnswerHelp() | AnswerSync():
                self._reply(number, node.state.me, effect)
            case MemberChanged(peer=peer):
                about = self._numbers[peer]
                change = Change(self.now, number, about, effect.state, effect.incarnation)
                self.changes.append(change)
                self.on_change(change)
            case PeerMissed(peer=peer):
                node.misses[peer] = node.misses.get(peer, 0) + 1
                if self.onlooker is not None:
                    self.onlooker.missed(number, self._numbers[peer])
                if node.misses[peer] == MISSES_MAX:
                    self.unroutable.append((self.now, number, self._numbers[peer]))
            case PartitionSuspected():
                self.partitions.append((self.now, number))
            case KeepIncarnation() | PartitionOver() | CheckConnections() | LookAtTheClock():
                pass

    def _question(self, number: int, me: PeerId, effect: Probe | Tell | AskHelp | AskSync) -> None:
        match effect:
            case Probe(number=asked, peer=peer, claims=claims):
                refusal = ProbeFailed(asked)
                self._ask(number, peer, lambda key: ProbeHeard(key, me, claims), refusal, asked)
            case Tell(peer=peer, claims=claims):
                self._ask(number, peer, lambda key: Told(key, me, claims))
            case AskHelp(number=asked, helper=helper, target=target, claims=claims):
                within_s = effect.timeout_s
                self._ask(
                    number,
                    helper,
                    lambda key: HelpAsked(key, me, target, within_s, claims),
                    HelpFailed(asked),
                    asked,
                )
            case AskSync(peer=peer, digest=digest):
                self._ask(number, peer, lambda key: SyncAsked(key, me, digest))

    def _reply(self, number: int, me: PeerId, effect: Answer | AnswerHelp | AnswerSync) -> None:
        asker, asked = self._questions.pop(effect.number)
        self.messages += 1
        if self.is_blocked(number, asker) or not self.nodes[asker].is_up:
            return
        reply: Event
        match effect:
            case Answer(claims=claims):
                if asked:
                    self.nodes[asker].misses.pop(me, None)
                reply = ProbeAnswered(asked, claims) if asked else Heard(me, claims)
            case AnswerHelp(has_reached=has_reached, claims=claims):
                reply = HelpAnswered(asked, has_reached, claims)
            case AnswerSync(digest=digest, rows=rows):
                reply = SyncAnswered(me, digest, rows)
        arrives_at = self._post_message(number, asker, reply)
        if self.onlooker is not None and isinstance(reply, ProbeAnswered):
            answered = partial(self.onlooker.answered, asker, number)
            self.after(arrives_at - self.now, answered)
