"""Answers of a moment become one entry of a journal, whichever groups of questions they are of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from kowalski.node.core.portions import spans
from kowalski.protocol.limits import FRAME_BYTES_MAX
from kowalski.protocol.messages import journal

MOMENT_S = 0.1
"""How long an answer may wait for others while its cell waits for others as well."""

ENTRY_BYTES_MAX = FRAME_BYTES_MAX // 2
"""Of texts: with what stands around them, and the longest one behind it, an entry holds them."""

ENTRY_ANSWERS_MAX = 256

ANSWER_BYTES = 1024
"""Around the text of one: names, digests, usage."""

Written = Callable[[journal.SubCallAnswered], None]
"""Called when an answer is in the journal."""


class GatheredAnswers:
    """`record` puts one entry into the journal. In order, each once; none is left behind."""

    def __init__(self, record: Callable[[journal.SessionEvent], None]) -> None:
        self._record = record
        self._waiting: list[tuple[journal.SubCallAnswered, Written]] = []
        self._news = trio.Event()

    def add(self, answered: journal.SubCallAnswered, written: Written) -> None:
        """To be written by `write`, or in a moment by whoever is in `keep_writing`."""
        self._waiting.append((answered, written))
        self._news.set()

    def write(self) -> None:
        """All that wait, now."""
        waiting, self._waiting = self._waiting, []
        weights = [ANSWER_BYTES + len((one.text or one.error or "").encode()) for one, _ in waiting]
        for start, end in spans(weights, bytes_max=ENTRY_BYTES_MAX, count_max=ENTRY_ANSWERS_MAX):
            self._record(_entry([one for one, _ in waiting[start:end]]))
            for one, written in waiting[start:end]:
                written(one)

    async def keep_writing(self) -> None:
        """Until cancelled; at most one moment after the first that waits."""
        while True:
            await self._news.wait()
            await trio.sleep(MOMENT_S)
            self._news = trio.Event()
            self.write()


def _entry(
    answers: Sequence[journal.SubCallAnswered],
) -> journal.SubCallAnswered | journal.SubCallsAnswered:
    return answers[0] if len(answers) == 1 else journal.SubCallsAnswered(answers=tuple(answers))
