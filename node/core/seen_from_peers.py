"""What peers see of this node, and what a person should make of it: clock and addresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kowalski.node.core.checks import Check
from kowalski.protocol.ids import Address, PeerId

OFFSET_S_MAX = 60.0
"""Certificates and invites end by the clock; they are granted five minutes' grace."""

ASKERS_MAX = 1024


@dataclass(frozen=True, slots=True)
class Exchange:
    """The four times of one request, two by our clock and two by the peer's (RFC 5905)."""

    asked_unix_s: float
    received_unix_s: float
    replied_unix_s: float
    heard_unix_s: float

    @property
    def offset_s(self) -> float:
        """By how much the peer's clock is ahead of ours; right within half of `delay_s`."""
        there = self.received_unix_s - self.asked_unix_s
        back = self.replied_unix_s - self.heard_unix_s
        return (there + back) / 2

    @property
    def delay_s(self) -> float:
        """What the way took, both ways, without the peer's own time; never below 0."""
        whole = self.heard_unix_s - self.asked_unix_s
        return max(0.0, whole - (self.replied_unix_s - self.received_unix_s))


@dataclass(frozen=True, slots=True)
class Seen:
    """By one peer; without an exchange it did not say, and `why` tells why."""

    name: str
    exchange: Exchange | None = None
    reached: frozenset[Address] = frozenset()
    why: str = ""


def check_clocks(seen: Sequence[Seen]) -> list[Check]:
    return [_check_clock(one.name, one.exchange) for one in seen if one.exchange is not None]


def _check_clock(name: str, exchange: Exchange) -> Check:
    offset_s = exchange.offset_s
    way = "behind" if offset_s > 0 else "ahead of"
    found = f"{_duration(abs(offset_s))} {way} {name}, give or take {exchange.delay_s * 500:.1f} ms"
    if abs(offset_s) <= OFFSET_S_MAX:
        return Check("clock of peers", "ok", found)
    cure = "set the clock that is wrong: certificates and invites end by it (systemd-timesyncd)"
    return Check("clock of peers", "warn", found, cure)


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def check_reach(addresses: Sequence[Address], seen: Sequence[Seen]) -> list[Check]:
    """One for each address that was to be dialled; one is enough to be reached by."""
    if not seen or not addresses:
        return []
    asked = [one for one in seen if one.exchange is not None]
    if not asked:
        why = "; ".join(f"{one.name}: {one.why}" for one in seen)
        return [Check("reachable", "ok", f"no peer could tell ({why})")]
    reached = frozenset[Address]().union(*(one.reached for one in asked))
    return [_check_address(address, asked, reached) for address in addresses]


def _check_address(address: Address, asked: Sequence[Seen], reached: frozenset[Address]) -> Check:
    if by := [one.name for one in asked if address in one.reached]:
        return Check("reachable", "ok", f"{', '.join(by)} reached {address}")
    found = f"{address} was not reached by {', '.join(one.name for one in asked)}"
    if reached:
        return Check("reachable", "ok", f"{found}; another address was")
    cure = "let the firewall pass this port; until then only this node can dial the others"
    return Check("reachable", "warn", found, cure)


@dataclass(slots=True)
class AskingRate:
    """One request of each asker in `every_s` seconds; of the least recent askers, forgets."""

    every_s: float
    last: dict[PeerId, float] = field(default_factory=dict[PeerId, float])

    def wait_s(self, asker: PeerId, now: float) -> float:
        """How long `asker` has to wait; 0 admits it, and counts from `now`."""
        waiting_s = self.last.get(asker, now - self.every_s) + self.every_s - now
        if waiting_s > 0:
            return waiting_s
        self.last.pop(asker, None)
        self.last[asker] = now
        if len(self.last) > ASKERS_MAX:
            del self.last[next(iter(self.last))]
        return 0.0


def chosen_peers(round_trips: Mapping[PeerId, float | None], count: int) -> list[PeerId]:
    """Whom to ask: the nearest, those of unknown distance last."""
    far = float("inf")

    def distance(peer: PeerId) -> tuple[float, PeerId]:
        rtt_s = round_trips[peer]
        return (far if rtt_s is None else rtt_s), peer

    return sorted(round_trips, key=distance)[:count]
