"""Who was tried for one piece of work, what they said, and what is worth trying next."""

from __future__ import annotations

from dataclasses import dataclass, field

from kowalski.mesh.core.backoff import full_jitter_s, spread_s
from kowalski.mesh.core.blame import is_busy
from kowalski.mesh.core.decisions import Decision
from kowalski.node.core.missed import MISSED_S
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import PeerId

ATTEMPTS_MAX = 3
"""Peers that may fail at one request. One that is busy did not fail."""

BUSY_WAIT_S = 0.1
BUSY_WAIT_S_MAX = 1.0


class PeersLostError(RequestFailedError):
    """All that were tried went away in the middle, and nobody else is there."""


@dataclass(slots=True)
class Tries:
    """Full is not broken: the busy are asked again.

    `are_patient`: where too many were made lately, the next one is made later, if there is time.
    """

    are_patient: bool = False
    failed: dict[PeerId, Exception] = field(default_factory=dict)
    busy: set[PeerId] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)
    """What those who failed said; `complaint` is what anybody said last."""
    complaint: str = ""
    is_full: bool = False
    """Whether that was that it is busy."""
    _wait_s: float = BUSY_WAIT_S
    _retry_after_s: float | None = None

    @property
    def excluded(self) -> frozenset[PeerId]:
        return frozenset({*self.failed, *self.busy})

    @property
    def are_too_many(self) -> bool:
        return len(self.failed) >= ATTEMPTS_MAX

    @property
    def are_lost(self) -> bool:
        """Whether somebody failed, and all who did went away."""
        failed = self.failed.values()
        return bool(failed) and all(isinstance(one, PeerUnreachableError) for one in failed)

    @property
    def may_wait(self) -> bool:
        return bool(self.busy) and not self.are_too_many

    def are_worth_a_wait(self, waited_s: float, *, is_somebody_missed: bool) -> bool:
        """Whether to wait for who is silent, where all that are there have failed."""
        return self.are_patient and is_somebody_missed and waited_s < MISSED_S

    @property
    def number(self) -> int:
        """Of the attempt that is next, or was the last to be made."""
        return len(self.failed) + 1

    def add(self, peer: PeerId, name: str, error: Exception) -> None:
        self.complaint = f"{name}: {error}"
        self.is_full = is_busy(error)
        if not self.is_full:
            self.failed[peer] = error
            self.complaints.append(self.complaint)
            return
        self.busy.add(peer)
        if isinstance(error, RequestRefusedError) and error.retry_after_s is not None:
            known = self._retry_after_s
            told = error.retry_after_s
            self._retry_after_s = told if known is None else min(known, told)

    def add_refusals(self, decision: Decision) -> None:
        """All who were asked for an offer are full."""
        names = {choice.peer: choice.name for choice in decision.ranking.choices}
        for peer, no in decision.refusals.items():
            full = RequestRefusedError("busy", no.why, no.retry_after_s)
            self.add(peer, names.get(peer) or peer[-6:], full)

    def wait_s(self, draw: float = 0.0) -> float:
        """How long to wait before the busy are asked again.

        What the first of them told, spread by `draw` in [0, 1) and at most a second, since somebody
        may leave early; where none told anything, longer every time.
        """
        self.busy.clear()
        told, self._retry_after_s = self._retry_after_s, None
        if told is not None:
            return min(BUSY_WAIT_S_MAX, spread_s(told, draw))
        wait_s, self._wait_s = self._wait_s, min(BUSY_WAIT_S_MAX, 2 * self._wait_s)
        return wait_s

    def pause_s(self, draw: float) -> float:
        """How long to wait after a failure before the next peer is asked."""
        return full_jitter_s(len(self.failed) - 1, draw)

    def outcome(self, nobody: str) -> RequestRefusedError | RequestFailedError:
        """What to tell who asked, once there is nobody left to try."""
        if not self.failed:
            return RequestRefusedError("no_peer", nobody)
        last, words = list(self.failed.values())[-1], "; ".join(self.complaints)
        if isinstance(last, RequestRefusedError):
            return RequestRefusedError(last.reason, words, last.retry_after_s)
        return (PeersLostError if self.are_lost else RequestFailedError)("peers_failed", words)
