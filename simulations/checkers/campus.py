"""The promises of tier B, watched from outside the nodes.

Numbers here are the promises', never read from the code that is watched.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kowalski.mesh.core.membership import RANK
from simulations.detectors import Change
from simulations.menu import Fault
from simulations.witness import Violation

if TYPE_CHECKING:
    from simulations.campus import CampusWorld

TELEMETRY_HEARD_MAX = 3600
"""A minute, at one node: as in a mesh of fifty in which everything moves, and a little."""

GRACE_S = 75.0
"""After trouble, a verdict may still be of it: the longest a suspicion takes at 10,000 nodes."""

STARVED_S = 60.0
"""So long no work waits for its beginning, while there are places."""

MESH_WIDE = frozenset({"packet-loss", "gossip-lost"})


class CampusChecker:
    """Who is there, whether all know it, and that work is done, soon.

    `membership_monotone`, `incarnation_is_its_own`, `nobody_is_given_up_for_nothing`,
    `views_converge`, `no_ghosts`, `tasks_are_conserved`, `nobody_starves`,
    `telemetry_within_budget`.
    """

    def __init__(self, world: CampusWorld) -> None:
        self._world = world
        self._believed: dict[tuple[int, int], tuple[int, int]] = {}
        self._troubled_until: dict[int, float] = {}
        self.evaluated: Counter[str] = Counter()
        self.violation: Violation | None = None

    def check(self, invariant: str, words: str, *, holds: bool) -> None:
        self.evaluated[invariant] += 1
        if not holds and self.violation is None:
            self.violation = Violation(invariant, words, self._world.clock.now)

    def befell(self, fault: Fault) -> None:
        ends_at = fault.at_s + max(fault.lasts_s, fault.amount) + GRACE_S
        if fault.kind == "lost":
            ends_at = float("inf")
        for number in fault.nodes[:1]:
            self._troubled_until[number] = max(ends_at, self._troubled_until.get(number, 0.0))

    def came_back(self, number: int) -> None:
        """A process believes nothing at its start."""
        for about in range(len(self._world.detectors.nodes)):
            self._believed.pop((number, about), None)

    def was_troubled(self, number: int) -> bool:
        return number in self._troubled_until

    def changed(self, change: Change) -> None:
        key, now = (change.observer, change.about), (change.incarnation, RANK[change.state])
        before = self._believed.get(key, (1, 0))
        who = f"node {change.observer} of node {change.about}"
        self.check(
            "membership_monotone",
            f"{who}: {change.state} at incarnation {change.incarnation} after {before}",
            holds=now > before or key not in self._believed,
        )
        self._believed[key] = now
        own = self._world.detectors.nodes[change.about].state.table.incarnation
        self.check(
            "incarnation_is_its_own",
            f"{who}: incarnation {change.incarnation}, it never said more than {own}",
            holds=change.incarnation <= own,
        )
        if change.state == "failed":
            at = self._world.clock.now
            is_excused = any(
                self._troubled_until.get(number, -1.0) >= at
                for number in (change.about, change.observer)
            )
            self.check(
                "nobody_is_given_up_for_nothing",
                f"{who}: given up, and it was there",
                holds=is_excused or not self._world.is_up(change.about),
            )

    def check_all(self) -> None:
        """Once everything that went wrong has ended, and there was time to settle."""
        minutes: Counter[int] = Counter()
        for second, said in self._world.gossip.said_in.items():
            minutes[second // 60] += said
        for minute, said in minutes.items():
            self.check(
                "telemetry_within_budget",
                f"each node hears {said} messages of telemetry in minute {minute}",
                holds=said <= TELEMETRY_HEARD_MAX,
            )
        self._check_views()
        self._check_tasks()

    def _check_views(self) -> None:
        """Everybody holds for living who is; of those that are, some may not know the last word."""
        nodes, peers = self._world.detectors.nodes, self._world.detectors.peers
        states = {
            node.state.table.digest: number for number, node in enumerate(nodes) if node.is_up
        }
        for number in states.values():
            table = nodes[number].state.table
            ghosts = [
                about
                for about, node in enumerate(nodes)
                if not node.is_up and table.is_living(peers[about])
            ]
            missed = [
                about
                for about, node in enumerate(nodes)
                if node.is_up and table.state_of(peers[about]) != "alive"
            ]
            self.check(
                "views_converge",
                f"node {number} holds {missed[:3]} for gone, who are there",
                holds=not missed,
            )
            self.check(
                "no_ghosts",
                f"node {number} holds {ghosts[:3]} for alive, who are gone",
                holds=not ghosts,
            )

    def _check_tasks(self) -> None:
        for number, job in self._world.jobs:
            self.check(
                "tasks_are_conserved",
                f"task {job.number} of node {number} has no end",
                holds=job.is_lost or job.latency_s is not None or job.is_over,
            )
            is_done = job.is_lost or job.latency_s is not None
            waited_s = (job.begun_at or job.asked_at) - job.asked_at
            self.check(
                "nobody_starves",
                f"task {job.number} of node {number} waited {waited_s:.1f} s to begin"
                if is_done
                else f"task {job.number} of node {number} was never done",
                holds=is_done and waited_s <= STARVED_S,
            )
