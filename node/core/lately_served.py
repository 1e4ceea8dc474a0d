"""Which models answered a moment ago: one that is not to be had just now may be back soon."""

from __future__ import annotations

LATELY_S = 300.0
MODELS_MAX = 256


class LatelyServed:
    """By the name that was asked for; times in seconds of the caller's clock."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}

    def note(self, model: str, now: float) -> None:
        if model not in self._at and len(self._at) >= MODELS_MAX:
            del self._at[min(self._at, key=self._at.__getitem__)]
        self._at[model] = now

    def was(self, model: str, now: float) -> bool:
        """Whether it answered within `LATELY_S`."""
        at = self._at.get(model)
        return at is not None and now - at <= LATELY_S
