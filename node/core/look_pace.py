"""When to look again for a model server at an address where somebody else was the last time.

Where nobody is, a look is one refused connection, and always due: who starts a model server after
the node finds it at the next look. But whoever takes connections and is no model server (a web
server on a usual port) is asked nine questions each time, and finds them in its log: it is left
alone for longer and longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

STRANGER_PAUSE_S: Final = 60.0
STRANGER_PAUSE_S_MAX: Final = 240.0


@dataclass(frozen=True, slots=True)
class LookPace:
    """Of the addresses where strangers are: how often each was met, and when to look again."""

    _met: Mapping[str, tuple[int, float]] = field(default_factory=dict)

    def is_due(self, url: str, now: float) -> bool:
        """Whether to look there."""
        _, due_at = self._met.get(url, (0, now))
        return now >= due_at

    def after(self, url: str, looked_at: float, *, is_stranger: bool) -> LookPace:
        """What holds after a look; `looked_at` is when it began."""
        met = dict(self._met)
        times, _ = met.pop(url, (0, 0.0))
        if is_stranger:
            pause_s = min(STRANGER_PAUSE_S * 2.0 ** min(times, 16), STRANGER_PAUSE_S_MAX)
            met[url] = times + 1, looked_at + pause_s
        return LookPace(met)
