"""What can go wrong: every kind of fault by name, whom it befalls, how bad it gets.

Pure data; `injection.py` does it to a world. A fault that is drawn is data as well, so that a story
can be told again, and with less in it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto


class Whom(Enum):
    ONE = auto()
    PAIR = auto()
    """An ordered pair: where only one direction suffers, it is that from the first."""
    SPLIT = auto()
    """All nodes in some order; `amount` says after how many of them the cut is."""
    ALL = auto()
    """The network."""


@dataclass(frozen=True, slots=True)
class Kind:
    about: str
    whom: Whom
    amount: tuple[float, float] = (0.0, 1.0)
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: when it begins, how long it lasts, whom it befalls."""

    kind: str
    at_s: float
    lasts_s: float
    nodes: tuple[int, ...]
    amount: float

    def __str__(self) -> str:
        whom = f" at {', '.join(map(str, self.nodes))}" if self.nodes else ""
        return (
            f"{self.kind}{whom} from {self.at_s:.2f} s for {self.lasts_s:.2f} s ({self.amount:.3g})"
        )


MENU: dict[str, Kind] = {
    # --- processes ---
    "crash": Kind("killed, down for a while", Whom.ONE, weight=2.0),
    "restart": Kind("killed and started again at once", Whom.ONE, weight=2.0),
    "power-cut": Kind("gone without a word to anybody", Whom.ONE, weight=2.0),
    "crash-in-write": Kind("killed between two writes of its ledger", Whom.ONE, weight=2.0),
    "crash-loop": Kind("killed and started again, over and over", Whom.ONE),
    "slow-restart": Kind("killed, and back when all have given it up", Whom.ONE, (12.0, 40.0)),
    "lost": Kind("gone for good", Whom.ONE, weight=0.5),
    "freeze": Kind(
        "stands still for up to ten seconds, its clock does not", Whom.ONE, (0.1, 10.0), 2
    ),
    "sleep": Kind("a laptop that is closed: it stands still, and its clock does", Whom.ONE),
    # --- links ---
    "silence": Kind("two do not hear each other, and nobody tells them", Whom.PAIR),
    "one-way": Kind("one hears the other, not the other way round", Whom.PAIR),
    "reject": Kind("connections between two break, new ones are refused", Whom.PAIR),
    "halves": Kind("a partition into two", Whom.SPLIT),
    "isolate": Kind("one hears nobody", Whom.ONE),
    "bridge": Kind("a partition into two, and one that hears both", Whom.SPLIT),
    "flap": Kind("a link that comes and goes", Whom.PAIR),
    "slow-link": Kind("a link that takes its time", Whom.PAIR, (0.05, 2.0)),
    "packet-loss": Kind("packets are sent again and again", Whom.ALL, (0.02, 0.3)),
    "narrow": Kind("bytes a second for everybody", Whom.ALL, (50_000.0, 1_000_000.0)),
    "reset": Kind("streams between two are reset", Whom.PAIR),
    "tear": Kind("streams between two are reset inside a frame", Whom.PAIR),
    # --- gossip ---
    "gossip-lost": Kind("messages that reach nobody", Whom.ALL, (0.1, 0.9)),
    "gossip-doubled": Kind("messages that come twice", Whom.ALL, (0.1, 0.9)),
    "gossip-late": Kind("messages that overtake each other", Whom.ALL, (0.1, 0.9)),
    "gossip-replayed": Kind("old messages that come again", Whom.ALL, (0.1, 0.9)),
    "gossip-quiet": Kind("one of whom no gossip is heard", Whom.ONE),
    # --- devices ---
    "wall-clock": Kind("a calendar set wrong, by seconds", Whom.ONE, (-240.0, 240.0)),
    "slow-worker": Kind("cells take up to ten times as long", Whom.ONE, (2.0, 10.0)),
    "slow-disk": Kind("each write takes seconds", Whom.ONE, (0.1, 3.0)),
    "disk-full": Kind("nothing can be written", Whom.ONE),
    "disk-errors": Kind("writes meet errors, one in two", Whom.ONE),
    "kill-sessions": Kind("the processes of its sessions die", Whom.ONE),
    "model-stalls": Kind("its model says a token in minutes", Whom.ONE),
    "model-fails": Kind("its model server is not to be reached", Whom.ONE),
    "model-errs": Kind("its model server is there, and answers errors", Whom.ONE),
    # --- lies ---
    "lies-idle": Kind("says that it has nothing to do", Whom.ONE),
    "lies-busy": Kind("says that it is full", Whom.ONE),
    "lies-fast": Kind("says that its models are the fastest", Whom.ONE),
    "lies-odd": Kind("says what is no number, or beyond reason", Whom.ONE),
    "jumbles": Kind(
        "offers the entries of what it leads twice, late or never", Whom.ONE, weight=2.0
    ),
    # --- malice: a peer that should not be there, or should know better, at one node's door ---
    "garbage": Kind("frames that are none: noise, too long, too deep", Whom.ONE),
    "forged-sender": Kind("a certificate of somebody else", Whom.ONE),
    "bad-signature": Kind("a certificate that nobody signed", Whom.ONE),
    "wrong-term": Kind("a member that grants, asks and closes in terms long over", Whom.ONE),
    "unknown-kind": Kind("a member that says what nobody knows", Whom.ONE),
    "flood-streams": Kind("more streams than anybody needs", Whom.ONE),
    "flood-requests": Kind("more requests than anybody answers", Whom.ONE),
    "flood-gossip": Kind("more gossip than anybody hears", Whom.ONE),
    "flood-telemetry": Kind("a member that tells of itself without an end", Whom.ONE),
    "bad-text": Kind("text that is no UTF-8, or odd enough to break a line", Whom.ONE),
    "join-flood": Kind("strangers by the dozen who would join, and one that was invited", Whom.ONE),
    "slow-loris": Kind("connections by the dozen that say next to nothing", Whom.ONE, (20.0, 60.0)),
    "mdns-spoof": Kind("members, and many made up, announced where they are not", Whom.ALL),
}

SPECIAL = frozenset(
    {
        "model-errs", "slow-restart", "disk-errors", "flood-telemetry", "bad-text", "join-flood",
        "slow-loris", "mdns-spoof",
    }
)  # fmt: skip
"""In those scenarios alone that name them."""

USUAL = tuple(kind for kind in MENU if kind not in SPECIAL)
"""What may go wrong where a scenario does not say. Whoever adds to it makes another story of every
seed of those, and hunts all mutants again."""

CAMPUS = (
    "crash", "restart", "power-cut", "lost", "freeze", "isolate", "packet-loss", "gossip-lost",
    "slow-worker", "lies-idle", "lies-busy",
)  # fmt: skip
"""What can befall the nodes of tier B, which have no streams, disks and sessions."""

LOST_SHARE_MAX = 1 / 3


def draw_faults(
    dice: random.Random,
    *,
    kinds: tuple[str, ...],
    nodes: Sequence[int],
    every_s: float,
    lasts_s_max: float,
    until_s: float,
) -> tuple[Fault, ...]:
    """The faults of one story, in the order in which they begin. They befall `nodes`, no others."""
    faults: list[Fault] = []
    lost: set[int] = set()
    weights = [MENU[kind].weight for kind in kinds]
    at_s = dice.expovariate(1 / every_s)
    while kinds and at_s < until_s:
        (name,) = dice.choices(kinds, weights)
        fault = _draw(dice, name, nodes, at_s, dice.uniform(0.5, max(lasts_s_max, 0.5)))
        if name != "lost":
            faults.append(fault)
        elif len(lost | set(fault.nodes)) <= (len(nodes) - 1) * LOST_SHARE_MAX:
            lost |= set(fault.nodes)
            faults.append(fault)
        at_s += dice.expovariate(1 / every_s)
    return tuple(faults)


def _draw(
    dice: random.Random, name: str, nodes: Sequence[int], at_s: float, lasts_s: float
) -> Fault:
    kind = MENU[name]
    amount = dice.uniform(*kind.amount)
    order = dice.sample(nodes, len(nodes))
    match kind.whom:
        case Whom.ONE:
            return Fault(name, at_s, lasts_s, tuple(order[:1]), amount)
        case Whom.PAIR:
            return Fault(name, at_s, lasts_s, tuple(order[:2]), amount)
        case Whom.SPLIT:
            return Fault(name, at_s, lasts_s, tuple(order), float(dice.randrange(1, len(nodes))))
        case Whom.ALL:
            return Fault(name, at_s, lasts_s, (), amount)


def draw_swarm(dice: random.Random, kinds: tuple[str, ...]) -> tuple[str, ...]:
    """The kinds that one story knows: each with a chance of its own, at least one.

    Swarm testing (Groce et al., ISSTA 2012): leaving kinds out finds what all of them together
    keep from happening.
    """
    share = dice.choice((0.1, 0.25, 0.5, 1.0))
    drawn = tuple(kind for kind in kinds if dice.random() < share)
    return drawn or (dice.choice(kinds),) if kinds else ()
