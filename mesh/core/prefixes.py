"""Which beginnings of conversations a peer has seen, so that its model may still hold them.

Model servers keep the attention state of the last prompts, and a prompt that begins alike is
answered several times faster there. Who served what is remembered by digests of the model and the
messages up to each point, by the worker and by who asked it; what a server really holds is its own
affair, so this is a hint that a loaded peer loses (affinity with a load override).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from kowalski.protocol.messages.placement import PREFIXES_MAX

HELD_S = 300.0
"""Ollama unloads a model after five minutes without a request."""

ENTRIES_MAX = 2048


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning of a conversation up to the end of one message; `tokens`: estimated."""

    digest: str
    tokens: int


def prefixes_of(model: str, messages: Iterable[tuple[str, str]]) -> tuple[Prefix, ...]:
    """All beginnings of (role, content) messages that are worth remembering, the longest first."""
    chained = blake2b(model.encode(), digest_size=8)
    tokens = 0
    found: list[Prefix] = []
    for role, content in messages:
        data = content.encode()
        chained.update(f"\0{role}\0{len(data)}\0".encode())
        chained.update(data)
        tokens += len(data) // 4 + 4
        found.append(Prefix(chained.hexdigest(), tokens))
    return tuple(reversed(found[-PREFIXES_MAX:]))


class PrefixBook:
    """For each beginning, at which place it was last read, and when; the oldest go first.

    Changed in place by its one owner: two thousand entries are too many to copy for each request.
    """

    def __init__(self, entries_max: int = ENTRIES_MAX) -> None:
        self._entries_max = entries_max
        self._seen: dict[str, tuple[str, int, float]] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def read(self, place: str, prefixes: Sequence[Prefix], now: float) -> None:
        """`place` has been given these."""
        for one in prefixes:
            self._seen.pop(one.digest, None)
            self._seen[one.digest] = (place, one.tokens, now)
        while len(self._seen) > self._entries_max:
            del self._seen[next(iter(self._seen))]

    def find(self, digests: Iterable[str], now: float) -> tuple[str, int] | None:
        """Who read the longest of these lately, and how many tokens it has; the longest first."""
        for digest in digests:
            entry = self._seen.get(digest)
            if entry is not None and now - entry[2] < HELD_S:
                return entry[0], entry[1]
        return None
