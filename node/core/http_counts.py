"""What a node counts of the requests that it answers over HTTP: plain numbers, read now and then.

They are counted with each request and looked at a few times a minute, so that counting is to be
cheap: an addition each, no lock, since one thread counts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypeVar

REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60)
CALL_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
MODELS_MAX = 256
OTHER = "other"
"""In place of what clients make up: a series is kept for each label for as long as a node runs."""

K = TypeVar("K")
V = TypeVar("V")


class Times:
    """A histogram: how many took at most as long as each of `bounds_s`, and all together."""

    __slots__ = ("_bounds_s", "_counts", "sum_s")

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self._bounds_s = bounds_s
        self._counts = [0] * (len(bounds_s) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds_s, seconds)] += 1
        self.sum_s += seconds

    def buckets(self) -> list[tuple[str, int]]:
        """As Prometheus has them: each with all below it, the last for any time at all."""
        bounds = (*(str(float(one)) for one in self._bounds_s), "+Inf")
        return list(zip(bounds, accumulate(self._counts), strict=True))


@dataclass(slots=True)
class _Count:
    """Of what has the same labels. `times` are those of its route or model, whatever the others."""

    times: Times
    number: int = 0

    def add(self, after_s: float) -> None:
        self.number += 1
        self.times.add(after_s)


@dataclass(slots=True)
class Tokens:
    prompt: int = 0
    completion: int = 0


@dataclass(slots=True)
class HttpCounts:
    """Of one node, from its start. Bounded: see `OTHER`."""

    request_s: dict[str, Times] = field(default_factory=dict)
    call_s: dict[str, Times] = field(default_factory=dict)
    tokens: dict[str, Tokens] = field(default_factory=dict)
    _requests: dict[tuple[str, str, int], _Count] = field(default_factory=dict)
    _calls: dict[tuple[str, str, str], _Count] = field(default_factory=dict)

    def request_answered(self, route: str, method: str, status: int, after_s: float) -> None:
        key = (route, method if method in METHODS else OTHER, status)
        count = self._requests.get(key)
        if count is None:
            times = _made(self.request_s, route, lambda: Times(REQUEST_BUCKETS_S))
            count = self._requests[key] = _Count(times)
        count.add(after_s)

    def call_ended(
        self, model: str, peer: str, outcome: str, after_s: float, used: Tokens | None = None
    ) -> None:
        """`model` is as a client named it, which need not be any; `used`: where that is known."""
        if model not in self.call_s and len(self.call_s) >= MODELS_MAX:
            model = OTHER
        key = (model, peer, outcome)
        count = self._calls.get(key)
        if count is None:
            times = _made(self.call_s, model, lambda: Times(CALL_BUCKETS_S))
            count = self._calls[key] = _Count(times)
        count.add(after_s)
        if used is not None:
            tokens = _made(self.tokens, model, Tokens)
            tokens.prompt += used.prompt
            tokens.completion += used.completion

    def requests(self) -> Iterator[tuple[tuple[str, str, str], int]]:
        """By route, method and status."""
        for (route, method, status), count in self._requests.items():
            yield (route, method, str(status)), count.number

    def calls(self) -> Iterator[tuple[tuple[str, str, str], int]]:
        """By model, peer and outcome."""
        for key, count in self._calls.items():
            yield key, count.number


def _made(known: dict[K, V], key: K, make: Callable[[], V]) -> V:
    if key not in known:
        known[key] = make()
    return known[key]
