"""Texts that end an answer, and the beginning that a continued answer says again. No I/O.

Both hold back as little as they can: only what may yet turn out to be the beginning of something.
"""

from __future__ import annotations

from collections.abc import Sequence

from kowalski.node.backends.seam import BackendError

RESTART_CHARS_MIN = 12
"""So much of what was said already, and then something else, is another answer and no chance."""


class StopCutter:
    """Ends a text before that of `stops` which is complete first, as servers do that honour them.

    Of those that end with the same letter, the longest. So it cannot matter how the text is cut.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.has_stopped = False

    def feed(self, text: str) -> str:
        """What of the text so far can be given on; nothing once it has stopped."""
        if self.has_stopped:
            return ""
        if not self._stops:
            return text
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.has_stopped = True
            self._held = ""
            return text[: min(found)[1]]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back, once nothing follows."""
        held, self._held = self._held, ""
        return held


class EchoCutter:
    """Takes off the beginning that was said already, if a continued answer says it again.

    Some servers put it in front of what they add, others only add. One that begins anew repeats it
    as far as chance has it: that is found out too.
    """

    def __init__(self, so_far: str) -> None:
        self._so_far = so_far
        self._held = ""
        self._is_settled = not so_far

    def feed(self, text: str) -> str:
        """What of the text so far goes on.

        Raises:
            BackendError: `bad_reply`, it began anew and differs.
        """
        if self._is_settled:
            return text
        held, self._held = self._held + text, ""
        if held.startswith(self._so_far):
            self._is_settled = True
            return held[len(self._so_far) :]
        if self._so_far.startswith(held):
            self._held = held
            return ""
        same = _common(held, self._so_far)
        # What goes on may begin like the whole by chance, but not for long.
        if same >= min(RESTART_CHARS_MIN, len(self._so_far)):
            raise BackendError("bad_reply", "it began the answer anew in place of going on")
        self._is_settled = True
        return held

    def finish(self) -> str:
        """What was held back: a short end that happens to begin like the whole."""
        held, self._held = self._held, ""
        self._is_settled = True
        return held


def _overlap(text: str, stop: str) -> int:
    """The most characters at the end of `text` that `stop` begins with."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0


def _common(one: str, other: str) -> int:
    return next(
        (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )
