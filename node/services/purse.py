"""The budget of one task while calls are under way: its session and all children draw on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kowalski.protocol.messages.task import TaskSpec
from kowalski.rlm import budget
from kowalski.rlm.budget import Over, Spent


class BudgetSpentError(Exception):
    """No further call may be made."""

    def __init__(self, over: Over) -> None:
        super().__init__(over.detail)
        self.over = over


class Purse:
    """`spent` is the ledger of the whole task, as its journal has it now."""

    def __init__(self, spec: TaskSpec, spent: Callable[[], Spent]) -> None:
        self._spec = spec
        self._spent = spent
        self._in_flight = 0

    @contextmanager
    def call(self) -> Iterator[None]:
        """Hold the place of one call until it is in the journal. Raises as `take`."""
        self.take()
        try:
            yield
        finally:
            self.give_back()

    def take(self) -> None:
        """Hold the place of one call until `give_back`, which is when it is in the journal.

        What is kept for the session's last word is nobody's here.

        Raises:
            BudgetSpentError: there is none left.
        """
        over = budget.over(
            self._spec, self._spent(), in_flight=self._in_flight, kept=budget.KEPT_CALLS
        )
        if over is not None:
            raise BudgetSpentError(over)
        self._in_flight += 1

    def give_back(self) -> None:
        self._in_flight -= 1

    def left(self) -> dict[str, int | None]:
        """Calls and tokens that cells may still use; None where there is no limit."""
        spent = self._spent()
        calls = budget.calls_left(self._spec, spent)
        if calls is not None:
            calls = max(0, calls - self._in_flight - budget.KEPT_CALLS)
        return {"calls": calls, "tokens": budget.tokens_left(self._spec, spent)}
