"""Which short questions go to a model together, and what each of them cost in the end.

A question that a model answers in milliseconds costs more to place, to admit and to journal than
to answer. So quick ones share all that: as many as one slot of a peer answers in a moment. Slow
ones stay alone, each bound to a peer only when that has room.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil, inf

from kowalski.node.core.batch_tail import QUICKEST_S
from kowalski.protocol.errors import RemoteProtocolError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.calls import CallName
from kowalski.protocol.messages.inference import COMPLETIONS_MAX, OneCompletion

QUICK_S = 0.5
"""A question that takes longer is asked alone."""

MOMENT_S = 1.0
"""What a group should take at most: so much is bound to a peer at once, and lost with it."""

LEAST_S = 0.05
"""What a group should take at least: less costs more to place than to answer."""

PATIENCE_TIMES = 10.0
PATIENCE_S_MIN = 0.5
"""One that takes so many times as long as usual, and so long, holds the others of its group up."""

AGAIN_SHARE_MAX = 0.02
AGAIN_SAVED_MAX = 3.0
"""Of the questions so many may be asked again because they take too long; what may be saved up."""

WEIGHT = 0.3
"""Of the latest in a moving average: a model that was just loaded is soon known to be quick."""

PACES_MAX = 1024
PROMPTS_BYTES_MAX = 512 * 1024


def group_size(each_s: float | None, *, waiting: int, slots: float, within_s: float = inf) -> int:
    """How many of the questions that wait should go to one peer together.

    `each_s` is what one is expected to take there, None where that is not known; `slots` are all
    that there are for such work, each counted as so many of this peer's as it is faster than it.
    Each gets half of its share of what is left, so that all are done at about the same time
    (factoring, for peers of unequal speed: Hummel, Schmidt, Uma and Wein, SPAA 1996), and no more
    than it answers `within_s`, until quicker ones would have done the rest (`batch_tail`).
    """
    if each_s is None or each_s > QUICK_S:
        return 1
    each_s = max(each_s, QUICKEST_S)
    share = max(ceil(waiting / (2 * max(1.0, slots))), int(LEAST_S / each_s))
    within = int(min(MOMENT_S, within_s) / each_s)
    return max(1, min(COMPLETIONS_MAX, within, share, waiting))


def patience_s(each_s: float) -> float:
    """How long to wait for the next answer of a group, from when it is due to be told."""
    return max(PATIENCE_S_MIN, PATIENCE_TIMES * each_s)


@dataclass(slots=True)
class SecondTries:
    """How often a question that takes far too long may be asked again elsewhere: one in fifty.

    Unlike a second request for a whole group (`mesh.core.hedging`) it costs one question, and its
    first try ends: so it is counted by questions, and may be had while all peers are busy.
    """

    saved: float = 1.0

    def answered(self, count: int) -> None:
        self.saved = min(AGAIN_SAVED_MAX, self.saved + AGAIN_SHARE_MAX * count)

    def take(self) -> bool:
        """False: there is none left."""
        if self.saved < 1.0 - 1e-9:
            return False
        self.saved -= 1.0
        return True


class Paces:
    """Seconds that a unit of work takes at each peer, as it says itself: moving averages."""

    def __init__(self) -> None:
        self._unit_s: dict[tuple[PeerId, str], float] = {}

    def learn(self, peer: PeerId, work: str, unit_s: float) -> None:
        before = self._unit_s.pop((peer, work), unit_s)
        self._unit_s[peer, work] = before + WEIGHT * (unit_s - before)
        while len(self._unit_s) > PACES_MAX:
            del self._unit_s[next(iter(self._unit_s))]

    def at_s(self, peer: PeerId, work: str, units: float) -> float | None:
        """What so many units take at a peer; None if it never did such work."""
        unit_s = self._unit_s.get((peer, work))
        return None if unit_s is None else unit_s * units

    def quickest_s(self, work: str, units: float) -> float | None:
        """The same at the quickest of the peers that did such work."""
        seen = (unit_s for (_, name), unit_s in self._unit_s.items() if name == work)
        quickest = min(seen, default=None)
        return None if quickest is None else quickest * units


@dataclass(slots=True, eq=False)
class Question:
    """One, and how many requests went to models for it so far. `name`: of the call in its task."""

    prompt: str
    name: CallName
    attempts: int = 0
    is_alone: bool = False
    """It did not come out well with others, or some peer has it already."""
    holder: PeerId | None = None
    """Who has it already."""


@dataclass(slots=True, eq=False)
class Group:
    """Questions that are asked together; `unanswered` is what the next peer would be asked."""

    unanswered: list[Question]
    under_way: int = 0
    """Peers that have been asked, and have not ended."""
    at: list[PeerId] = field(default_factory=list)
    """Who they are, or who is to be asked first."""

    def keep(self, count: int) -> list[Question]:
        """Ask only so many, at least one. Returns the others, while nobody was asked for them."""
        if self.under_way:
            return []
        surplus = self.unanswered[max(1, count) :]
        del self.unanswered[max(1, count) :]
        return surplus

    def disband(self) -> list[Question]:
        """Ask nobody for them together: all that are unanswered."""
        given_up, self.unanswered = self.unanswered, []
        return given_up

    def break_off(self) -> list[Question]:
        """Ask none of the others of this peer: the one that is under way takes far too long.

        Returns all that have no answer, that one to be asked alone from now on; none while two
        peers are asked, of whom the quicker goes on.
        """
        if self.under_way != 1 or not self.unanswered:
            return []
        given_up, self.unanswered = self.unanswered, []
        given_up[0].is_alone = True
        return given_up

    def ask(self) -> Asking | None:
        """None where a peer that was lost, or another one, has answered all of it meanwhile."""
        return Asking(self, tuple(self.unanswered)) if self.unanswered else None


@dataclass(frozen=True, slots=True)
class Line:
    """All that a cell waits for: `waiting` are in no group yet, some groups have no peer yet."""

    waiting: int
    groups: Sequence[Group]

    @property
    def unasked(self) -> int:
        return self.waiting + sum(len(one.unanswered) for one in self.groups if not one.under_way)

    @property
    def offered(self) -> int:
        """Groups that seek a peer."""
        return sum(not one.at for one in self.groups)

    def load(self) -> dict[PeerId, tuple[int, int]]:
        """Of each peer that has some: questions that it has not answered, in how many groups."""
        found: dict[PeerId, tuple[int, int]] = {}
        for group in self.groups:
            under_way = len(group.unanswered) if group.under_way else 0
            for peer in group.at:
                questions, groups = found.get(peer, (0, 0))
                found[peer] = questions + under_way, groups + 1
        return found


@dataclass(slots=True)
class Asking:
    """One peer is asked, and answers in the order of the questions, one after the other.

    So the requests to a model are counted, also where the peer is lost in the middle: those that
    were answered, and the one after them. What such a peer had answered in its last moment
    (`one_by_one.MOMENT_S`) and not told is not known, and not counted.
    """

    group: Group
    questions: tuple[Question, ...]
    answered: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.group.under_way += 1
        self.questions[0].attempts += 1

    def tell(self, answers: Iterable[OneCompletion]) -> Sequence[tuple[Question, OneCompletion]]:
        """The next answers, each with its question.

        Raises:
            RemoteProtocolError: they are not the next ones.
        """
        told = []
        for answer in answers:
            if answer.slot != self.answered or self.answered >= len(self.questions):
                raise RemoteProtocolError(
                    f"answer {answer.slot} of {len(self.questions)}, where {self.answered} was due"
                )
            question = self.questions[self.answered]
            question.attempts -= answer.is_refused
            self.answered += 1
            if self.answered < len(self.questions):
                self.questions[self.answered].attempts += 1
            self.group.unanswered.remove(question)
            told.append((question, answer))
        return told

    def refused(self) -> None:
        """The peer would not go on: no model was asked the next one."""
        if self.answered < len(self.questions):
            self.questions[self.answered].attempts -= 1

    def end(self) -> None:
        """The peer has said its last, or is lost."""
        self.group.under_way -= 1

    def check(self) -> None:
        """Raises RemoteProtocolError: it has ended, and not all were answered."""
        if self.answered < len(self.questions):
            raise RemoteProtocolError(f"{self.answered} of {len(self.questions)} were answered")
