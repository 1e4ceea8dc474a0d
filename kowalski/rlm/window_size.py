"""How much of a model's window a session may fill. Pure.

Texts are measured in tokens of our own estimate; a window is told in tokens of the model. What lies
between is counted exactly where somebody can, else learnt from what the model's server told of
earlier prompts, else guessed. What is not exact gets a margin, and a reply its room.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import Final

LEARNT_TOKENS_MIN: Final = 100
"""Shorter prompts say more about the chat template than about the vocabulary."""

FACTOR_MIN: Final = 0.5
"""Less is a server that did not count what it held already."""

FACTOR_MAX: Final = 8.0
"""Of a small vocabulary, trained on another language."""

WEIGHT: Final = 0.3
"""Of the newest count, where it is lower; a higher one counts at once, since too few is worse."""

GUESSED_MARGIN: Final = 1.10
"""The error of the estimate on texts of its own kind has its 95th percentile at 8 %."""

LEARNT_MARGIN: Final = 1.05
"""The vocabulary is known then; the text that comes next is another."""

REPLY_TOKENS_MAX: Final = 4096
REPLY_SHARE: Final = 0.25
"""Of a window is left to the reply, at most the above."""

WINDOW_TOKENS_DEFAULT: Final = 8192
"""Of a model that does not tell; Ollama's and llama.cpp's defaults are 4096 to 8192."""


@dataclass(frozen=True, slots=True)
class TokenScale:
    """How many tokens of a model one of our estimate is."""

    factor: float = 1.0
    is_learnt: bool = False

    def at_most(self, estimated: int) -> int:
        """Tokens of the model that a text of so many of ours hardly exceeds."""
        margin = LEARNT_MARGIN if self.is_learnt else GUESSED_MARGIN
        return ceil(estimated * self.factor * margin)

    def ours(self, tokens: int) -> int:
        """So many tokens of the model in our estimate's, without a margin."""
        return max(1, int(tokens / self.factor))

    def heard(self, estimated: int, counted: int) -> TokenScale:
        """What holds after a server has counted so many tokens for a text of so many of ours.

        The same where that cannot be a count of the whole text, or the text is too short.
        """
        if estimated < LEARNT_TOKENS_MIN or not FACTOR_MIN <= counted / estimated <= FACTOR_MAX:
            return self
        measured = counted / estimated
        if self.is_learnt and measured < self.factor:
            measured = WEIGHT * measured + (1 - WEIGHT) * self.factor
        return TokenScale(measured, is_learnt=True)

    def told(self, estimated: int, tokens: int, *, is_exact: bool) -> TokenScale:
        """What holds after a peer has told so many tokens for a text of so many of ours.

        Where it estimates, it may have learnt no more than we have.
        """
        return self if not is_exact and tokens == estimated else self.heard(estimated, tokens)


UNLEARNT: Final = TokenScale()


def room_tokens(wanted: int, windows: Iterable[int | None]) -> int:
    """Tokens of the model that a prompt may have: `wanted`, or what a window leaves beside a reply.

    `windows` of all that may be asked, None where one does not tell.
    """
    told = min((WINDOW_TOKENS_DEFAULT if one is None else one for one in windows), default=None)
    if told is None:
        return wanted
    return max(1, min(wanted, told - min(REPLY_TOKENS_MAX, int(told * REPLY_SHARE))))


def is_worth_counting(estimated: int, room: int) -> bool:
    """Whether a text of so many of our tokens may fit so many of the model, and may not."""
    return estimated * FACTOR_MIN <= room < estimated * FACTOR_MAX
