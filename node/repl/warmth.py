"""Which kernels wait warm: some always, and one of each language that was used lately. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

LATELY_S: Final = 600.0
"""A language keeps a kernel for as long after its last session: longer than a turn of a model."""


class Warmth:
    """`always` by language; besides these, one kernel for up to `lately_max` others."""

    def __init__(self, always: Mapping[str, int], *, lately_max: int) -> None:
        self._always = dict(always)
        self._lately_max = lately_max
        self._used_at: dict[str, float] = {}

    @property
    def kernels_max(self) -> int:
        return sum(self._always.values()) + self._lately_max

    def used(self, language: str, now: float) -> None:
        """A session of it was opened."""
        if language in self._always or self._lately_max == 0:
            return
        self._used_at.pop(language, None)
        self._used_at[language] = now
        while len(self._used_at) > self._lately_max:
            del self._used_at[next(iter(self._used_at))]

    def wanted(self, now: float) -> Mapping[str, int]:
        """How many are to wait, by language."""
        lately = {language: 1 for language, used in self._used_at.items() if now < used + LATELY_S}
        return {**self._always, **lately}
