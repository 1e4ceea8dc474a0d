"""A process that is stopped does nothing, whatever happens around it: else a simulator has lied."""

from __future__ import annotations

from math import inf

from kowalski.mesh.watching import Recorded
from simulations.witness import NoChecker, Said, Witness


class Stillness(NoChecker):
    """`who_stands_still_is_still`: it says, hears and writes nothing, and steps no machine.

    Looked at once for each time that a node stood still, when it moves again.
    """

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._moved_after: dict[int, float] = {}
        """By node: since when it had stood still, the last time that it moved again."""

    def said(self, said: Said) -> None:
        self._look(said.speaker, "said", said.message.KIND)

    def heard(self, said: Said) -> None:
        self._look(said.hearer, "heard", said.message.KIND)

    def stored(self, number: int, method: str, arguments: tuple[object, ...]) -> None:
        del arguments
        self._look(number, "wrote", method)

    def stepped(
        self, number: int, driver: Recorded, event: object, effects: tuple[object, ...]
    ) -> None:
        del effects
        self._look(number, driver.machine, event)

    def _look(self, number: int, did: str, what: object) -> None:
        since, until = self.witness.stood_still(number)
        now = self.witness.now
        if since < now < until:
            words = f"node {number} stands still since {since:.3f} s: {did} {what!r:.200}"
            self.witness.check("who_stands_still_is_still", holds=False, words=words)
        elif until <= now and self._moved_after.get(number, inf) != since < inf:
            self._moved_after[number] = since
            self.witness.check("who_stands_still_is_still", holds=True, words="")
