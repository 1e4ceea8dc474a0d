"""What work a node takes on: places that are limited, lines that are short, promises that are kept.

For each lane, one kind of work with slots of its own: who runs, whose place is reserved, who waits
in which order (`fair_queue`). A request that could only be begun too late, or that would make the
line longer than `QUEUE_FACTOR` times the slots, is refused at once with the time after which it may
be worth asking again; so is everything while the node takes no work (`Paused`), but its own. A node
that is about to leave (`Draining`) takes on nothing but what can go on nowhere else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf

from kowalski.node.core.fair_queue import FairQueue, Waiting
from kowalski.node.core.lane import RETRY_AFTER_S_MIN, Lane, Reserved, Running, without
from kowalski.protocol.messages.placement import Priority

QUEUE_FACTOR = 2
PAUSED_RETRY_AFTER_S = 30.0

PATIENCE_SHARE = 0.5
"""Once somebody has waited this share of its patience, the newest are served first."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """`reason` as in `messages.base.Refused`."""

    reason: str
    detail: str
    retry_after_s: float | None = None


LEAVING = Refusal("draining", "this node is about to leave")


# --- events -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wish:
    """A piece of work that somebody wants done in `lane`, which has so many `slots` now.

    `asker` is the peer that asks, `flow` the submitter it is done for. `cost_s`: expected seconds.
    `is_own`: the owner of this device asks, whom no limit for others concerns. `is_bound`: it goes
    on with something here that may not be begun again elsewhere.
    """

    lane: str
    slots: int
    asker: str
    flow: str
    priority: Priority
    cost_s: float
    remaining_s: float
    is_own: bool = False
    is_bound: bool = False


@dataclass(frozen=True, slots=True)
class Arrived:
    """`ticket` is the caller's number for it; `reservation` of an earlier `Promise`, if any."""

    ticket: int
    wish: Wish
    reservation: int | None = None


@dataclass(frozen=True, slots=True)
class OfferWanted:
    """`reserve_s` 0: the place is not held."""

    reservation: int
    wish: Wish
    reserve_s: float


@dataclass(frozen=True, slots=True)
class GivenBack:
    """Whoever reserved a place goes elsewhere. Spent and unknown reservations may be named too."""

    reservation: int


@dataclass(frozen=True, slots=True)
class Left:
    """Done, or its asker has gone, also while it waited."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Lent:
    """It waits for something outside and leaves its slot to others."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Returned:
    """It goes on, at once: whoever has begun is not made to queue again."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Paused:
    """Take no work of others from now on, and say why; an empty `why` ends that."""

    why: str


@dataclass(frozen=True, slots=True)
class Draining:
    """Take nothing on from now on, since this node is about to leave; or take work again."""

    is_on: bool


@dataclass(frozen=True, slots=True)
class TimePassed:
    pass


Event = Arrived | OfferWanted | GivenBack | Left | Lent | Returned | Paused | Draining | TimePassed


# --- effects ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    ticket: int


@dataclass(frozen=True, slots=True)
class Refuse:
    ticket: int
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Promise:
    """Would begin in `wait_s` seconds, if it came now."""

    reservation: int
    wait_s: float


@dataclass(frozen=True, slots=True)
class RefuseOffer:
    reservation: int
    refusal: Refusal


Effect = Start | Refuse | Promise | RefuseOffer


# --- state --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Admission:
    lanes: dict[str, Lane] = field(default_factory=dict)
    paused: str = ""
    is_draining: bool = False

    @property
    def jobs(self) -> int:
        """All that runs or waits, lent slots included."""
        return sum(len(lane.running) + len(lane.queue) for lane in self.lanes.values())


def wake_at(state: Admission) -> float:
    return min(
        (
            at
            for lane in state.lanes.values()
            for at in (
                *(one.until for one in lane.reserved.values()),
                *(one.give_up_at for one in lane.queue.waiting),
            )
        ),
        default=inf,
    )


# --- the machine --------------------------------------------------------------------------------

_Stepped = tuple[Admission, tuple[Effect, ...]]


def step(state: Admission, event: Event, now: float) -> _Stepped:
    match event:
        case Arrived():
            return _arrive(state, event, now)
        case OfferWanted():
            return _offer(state, event, now)
        case GivenBack(reservation=reservation):
            return _give_back(state, reservation)
        case Left(ticket=ticket):
            return _leave(state, ticket, now)
        case Lent(ticket=ticket):
            return _lend(state, ticket, now, is_lent=True)
        case Returned(ticket=ticket):
            return _lend(state, ticket, now, is_lent=False)
        case Paused(why=why):
            return _pause(state, why)
        case Draining(is_on=is_on):
            return _drain(state, is_on=is_on)
        case TimePassed():
            return _pass_time(state, now)


def _lane_for(state: Admission, wish: Wish, now: float) -> tuple[Lane, tuple[Effect, ...]]:
    """The lane as it is with so many slots as it has now."""
    lane = state.lanes.get(wish.lane) or Lane(wish.slots)
    if lane.slots == wish.slots:
        return lane, ()
    return _dispatch(replace(lane, slots=wish.slots), now)


def _with_lane(state: Admission, name: str, lane: Lane) -> Admission:
    lanes = without(state.lanes, name)
    if not lane.is_idle:
        lanes[name] = lane
    return Admission(lanes, state.paused, state.is_draining)


def _why_not(state: Admission, lane: Lane, wish: Wish, now: float) -> Refusal | None:
    """Why a wish is not taken on, whatever room could be made for it."""
    if state.is_draining and not wish.is_bound:
        return LEAVING
    if state.paused and not wish.is_own:
        return Refusal("paused", state.paused, PAUSED_RETRY_AFTER_S)
    if lane.slots < 1:
        return Refusal("busy", "no slots", PAUSED_RETRY_AFTER_S)
    if lane.busy < lane.slots and not lane.queued:
        return None
    waits_s = lane.wait_s(wish.flow, wish.priority, now)
    if waits_s > wish.remaining_s:
        words = f"a wait of {waits_s:.3g} s, {wish.remaining_s:.3g} s are left"
        return Refusal("busy", f"{lane}: {words}", lane.retry_after_s(now))
    return None


def _with_room(lane: Lane, wish: Wish, now: float) -> tuple[Lane, tuple[Effect, ...]] | None:
    """The lane with a place for `wish`, and who had to go for it; None where nobody has to.

    First a reservation of a flow that holds more of them, then one of those who wait.
    """
    if lane.queued < QUEUE_FACTOR * lane.slots or lane.busy < lane.slots:
        return lane, ()
    held = Counter(one.flow for one in lane.reserved.values())
    for reservation, one in reversed(lane.reserved.items()):
        if held[one.flow] == max(held.values()) > held[wish.flow] + 1:
            return replace(lane, reserved=without(lane.reserved, reservation)), ()
    victim = lane.queue.victim(wish.flow, wish.priority, now)
    if victim is None:
        return None
    refusal = Refusal("busy", f"{lane}: others come first", lane.retry_after_s(now))
    return replace(lane, queue=lane.queue.remove(victim.ticket)), (Refuse(victim.ticket, refusal),)


def _arrive(state: Admission, event: Arrived, now: float) -> _Stepped:
    wish = event.wish
    lane, effects = _lane_for(state, wish, now)
    reserved = None if event.reservation is None else lane.reserved.get(event.reservation)
    if event.reservation is not None and reserved is not None and reserved.asker == wish.asker:
        lane = replace(lane, reserved=without(lane.reserved, event.reservation))
    else:
        refusal = _why_not(state, lane, wish, now)
        room = None if refusal is not None else _with_room(lane, wish, now)
        if room is None:
            refusal = refusal or Refusal("busy", str(lane), lane.retry_after_s(now))
            return _with_lane(state, wish.lane, lane), (*effects, Refuse(event.ticket, refusal))
        lane, effects = room[0], effects + room[1]
    if lane.busy < lane.slots and not lane.queue.waiting:
        queue = lane.queue.charge(wish.flow, wish.cost_s)
        running = {**lane.running, event.ticket: Running(wish.flow, wish.cost_s, now)}
        lane = Lane(lane.slots, running, lane.reserved, queue)
        return _with_lane(state, wish.lane, lane), (*effects, Start(event.ticket))
    waiting = Waiting(
        ticket=event.ticket,
        flow=wish.flow,
        priority=wish.priority,
        cost_s=wish.cost_s,
        arrived_at=now,
        give_up_at=now + wish.remaining_s,
        is_own=wish.is_own,
        is_bound=wish.is_bound,
    )
    lane, begun = _dispatch(replace(lane, queue=lane.queue.push(waiting)), now)
    return _with_lane(state, wish.lane, lane), effects + begun


def _dispatch(lane: Lane, now: float) -> tuple[Lane, tuple[Effect, ...]]:
    """Fill the slots with those who wait."""
    begun: list[Effect] = []
    while lane.queue.waiting and lane.busy < lane.slots:
        popped = lane.queue.pop(now, newest_first=_is_overloaded(lane.queue, now))
        if popped is None:
            break
        queue, one = popped
        running = {**lane.running, one.ticket: Running(one.flow, one.cost_s, now)}
        lane = Lane(lane.slots, running, lane.reserved, queue)
        begun.append(Start(one.ticket))
    return lane, tuple(begun)


def _is_overloaded(queue: FairQueue, now: float) -> bool:
    return any(
        now - one.arrived_at > PATIENCE_SHARE * (one.give_up_at - one.arrived_at)
        for one in queue.waiting
    )


def _offer(state: Admission, event: OfferWanted, now: float) -> _Stepped:
    wish = event.wish
    lane, effects = _lane_for(state, wish, now)
    refusal = _why_not(state, lane, wish, now)
    room = None if refusal is not None else _with_room(lane, wish, now)
    if room is None:
        refusal = refusal or Refusal("busy", str(lane), lane.retry_after_s(now))
        refused = RefuseOffer(event.reservation, refusal)
        return _with_lane(state, wish.lane, lane), (*effects, refused)
    if not room[1]:  # nobody is sent away for a mere question
        lane = room[0]
    waits_s = lane.wait_s(wish.flow, wish.priority, now)
    if event.reserve_s > 0:
        held = Reserved(wish.asker, wish.flow, wish.cost_s, now + event.reserve_s)
        lane = replace(lane, reserved={**lane.reserved, event.reservation: held})
    return _with_lane(state, wish.lane, lane), (*effects, Promise(event.reservation, waits_s))


def _give_back(state: Admission, reservation: int) -> _Stepped:
    for name, lane in state.lanes.items():
        if reservation in lane.reserved:
            rest = without(lane.reserved, reservation)
            return _with_lane(state, name, replace(lane, reserved=rest)), ()
    return state, ()


def _leave(state: Admission, ticket: int, now: float) -> _Stepped:
    name = _lane_of(state, ticket)
    if name is None:
        return state, ()
    lane = state.lanes[name]
    one = lane.running.get(ticket)
    if one is None:
        return _with_lane(state, name, replace(lane, queue=lane.queue.remove(ticket))), ()
    queue = lane.queue.correct(one.flow, now - one.started_at - one.cost_s)
    running = without(lane.running, ticket)
    lane, begun = _dispatch(Lane(lane.slots, running, lane.reserved, queue), now)
    return _with_lane(state, name, lane), begun


def _lend(state: Admission, ticket: int, now: float, *, is_lent: bool) -> _Stepped:
    name = _lane_of(state, ticket)
    if name is None or ticket not in state.lanes[name].running:
        return state, ()
    lane = state.lanes[name]
    one = replace(lane.running[ticket], is_lent=is_lent)
    lane, begun = _dispatch(replace(lane, running={**lane.running, ticket: one}), now)
    return _with_lane(state, name, lane), begun


def _lane_of(state: Admission, ticket: int) -> str | None:
    for name, lane in state.lanes.items():
        if ticket in lane.running or any(one.ticket == ticket for one in lane.queue.waiting):
            return name
    return None


def _pause(state: Admission, why: str) -> _Stepped:
    """What runs goes on; who waits is told now, so that it can go elsewhere."""
    refusal = Refusal("paused", why, PAUSED_RETRY_AFTER_S)
    return _send_away(replace(state, paused=why), lambda one: bool(why) and not one.is_own, refusal)


def _drain(state: Admission, *, is_on: bool) -> _Stepped:
    """As pausing does, but nobody is told to ask again later."""
    return _send_away(
        replace(state, is_draining=is_on), lambda one: is_on and not one.is_bound, LEAVING
    )


def _pass_time(state: Admission, now: float) -> _Stepped:
    for name, lane in state.lanes.items():
        reserved = {key: one for key, one in lane.reserved.items() if one.until > now}
        state = _with_lane(state, name, replace(lane, reserved=reserved))
    late = Refusal("busy", "no slot in the time that was left", RETRY_AFTER_S_MIN)
    return _send_away(state, lambda one: one.give_up_at <= now, late)


def _send_away(state: Admission, goes: Callable[[Waiting], bool], refusal: Refusal) -> _Stepped:
    """Refuse those who wait and of whom `goes` holds."""
    effects: list[Effect] = []
    for name, lane in state.lanes.items():
        queue = lane.queue
        for one in queue.waiting:
            if goes(one):
                queue = queue.remove(one.ticket)
                effects.append(Refuse(one.ticket, refusal))
        state = _with_lane(state, name, replace(lane, queue=queue))
    return state, tuple(effects)


def check(state: Admission) -> None:
    """What must hold after every step."""
    tickets: set[int] = set()
    for lane in state.lanes.values():
        assert not lane.is_idle
        waiting = {one.ticket for one in lane.queue.waiting}
        assert len(waiting) == len(lane.queue)
        assert not (tickets & (waiting | set(lane.running)))
        assert not waiting & set(lane.running)
        tickets |= waiting | set(lane.running)
        assert lane.busy >= lane.slots or not waiting, "a slot is free and somebody waits"
