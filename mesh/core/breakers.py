"""The breakers of a node, one for each peer and kind of work, and how often each kind's opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from kowalski.mesh.core.breaker import Breaker, Passage, Standing
from kowalski.mesh.core.placement import Kind
from kowalski.protocol.ids import PeerId

Key = tuple[PeerId, Kind]


class Breakers:
    """Of peers that are there; who comes back begins with a new one. `me` seeds their jitter."""

    def __init__(self, me: PeerId) -> None:
        self._me = me
        self._of: dict[Key, Breaker] = {}
        self.opened: Counter[Kind] = Counter()
        """How often, since this node began."""

    def __iter__(self) -> Iterator[tuple[Key, Standing]]:
        """Those through which something was sent."""
        return ((key, breaker.standing) for key, breaker in self._of.items())

    def admits(self, key: Key, now: float) -> bool:
        """Whether a request may go through."""
        breaker = self._of.get(key)
        return breaker is None or breaker.admits(now)

    def send(self, key: Key, now: float) -> Passage:
        self._of[key], passage = self._breaker(key).send(now)
        return passage

    def succeed(self, key: Key, passage: Passage) -> None:
        self._of[key] = self._breaker(key).succeed(passage)

    def fail(self, key: Key, passage: Passage, now: float) -> None:
        before = self._breaker(key)
        self._of[key] = after = before.fail(passage, now)
        if after.openings > before.openings:
            self.opened[key[1]] += 1

    def abandon(self, key: Key, passage: Passage) -> None:
        self._of[key] = self._breaker(key).abandon(passage)

    def is_probe(self, key: Key, passage: Passage) -> bool:
        """Whether what was let through is to find out if the breaker may close, still."""
        return passage.is_probe and passage.era == self._breaker(key).era

    def forget(self, peer: PeerId) -> None:
        for key in [key for key in self._of if key[0] == peer]:
            del self._of[key]

    def _breaker(self, key: Key) -> Breaker:
        return self._of.get(key) or Breaker(f"{self._me} {key[0]} {key[1]}")
