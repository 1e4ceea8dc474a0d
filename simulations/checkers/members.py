"""Who belongs and how it is with them: what nodes tell each other of others (SWIM's promises)."""

from __future__ import annotations

from kowalski.mesh.core.failure_detector_events import MemberChanged
from kowalski.mesh.core.failure_detector_state import FailureDetector
from kowalski.mesh.core.membership import RANK
from kowalski.mesh.watching import Recorded
from kowalski.protocol.ids import PeerId
from simulations.witness import NoChecker, Witness


class Members(NoChecker):
    """`membership_monotone`, `incarnation_is_its_own`, `nobody_is_given_up_for_nothing`."""

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._believed: dict[tuple[int, PeerId], tuple[int, int]] = {}
        """By believer and of whom: the highest incarnation, and the worst state at it."""
        self._own: dict[PeerId, int] = {}
        """The highest incarnation that each has taken, or may take as it starts again."""
        self._peers: dict[int, PeerId] = {}
        self.given_up: list[str] = []
        """Verdicts, in words."""

    def began(self, number: int) -> None:
        """A new process believes nothing yet, and rises by one before its machine takes a step."""
        if number in self._peers:
            self._own[self._peers[number]] += 1
        for key in [key for key in self._believed if key[0] == number]:
            del self._believed[key]

    def stepped(
        self, number: int, driver: Recorded, event: object, effects: tuple[object, ...]
    ) -> None:
        del event
        state = driver.state
        if not isinstance(state, FailureDetector):
            return
        me = self._peers[number] = state.table.me
        self._own[me] = max(state.table.incarnation, self._own.get(me, 0))
        for effect in effects:
            if isinstance(effect, MemberChanged):
                self._changed(number, effect)

    def _changed(self, number: int, change: MemberChanged) -> None:
        key = (number, change.peer)
        now = (change.incarnation, RANK[change.state])
        before = self._believed.get(key, (-1, 0))
        who = f"node {number} of node {self.witness.number_of(change.peer)}"
        self.witness.check(
            "membership_monotone",
            holds=now > before,
            words=f"{who}: {change.state} at incarnation {change.incarnation} after {before}",
        )
        self._believed[key] = now
        if change.peer in self._own:
            self.witness.check(
                "incarnation_is_its_own",
                holds=change.incarnation <= self._own[change.peer],
                words=f"{who}: incarnation {change.incarnation}, it never said more than "
                f"{self._own[change.peer]}",
            )
        if change.state == "failed":
            self.given_up.append(f"{who} at {self.witness.now:.2f} s")

    def check_all(self, *, is_quiet: bool) -> None:
        """After the story: where nothing went wrong, nobody was given up."""
        self.witness.check(
            "nobody_is_given_up_for_nothing",
            holds=not is_quiet or not self.given_up,
            words=f"without a fault: {'; '.join(self.given_up[:5])}",
        )
