"""Whose fault it is that a request did not succeed, for breakers and for what is tried next."""

from __future__ import annotations

from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)

Weather = (PeerUnreachableError, RequestRefusedError, RequestFailedError, RemoteProtocolError)
"""What a request to a peer may raise."""

PEERS_FAULT = frozenset({"internal", "backend", "sandbox", "unreachable"})
"""Codes of failures that say something of the peer; those of the asker's own making do not."""

NOT_ELSEWHERE = frozenset({"bad_request", "timeout", "cut_short"})
"""Failures that another peer would only repeat."""

FULL = frozenset({"busy", "paused"})
"""Refusals of a peer that is well, and may take the work later."""


def is_peers_fault(error: Exception) -> bool:
    """A failure of the peer or of the way to it. A `no` is none, and neither is a program's end."""
    if isinstance(error, RequestFailedError):
        return error.code in PEERS_FAULT
    return isinstance(error, PeerUnreachableError | RemoteProtocolError)


def blame(error: Exception) -> str:
    """`silent`: the peer should be probed; `failed`: it is there, and not well; else `answered`."""
    if isinstance(error, PeerUnreachableError):
        return "silent"
    return "failed" if is_peers_fault(error) else "answered"


def is_worth_another_peer(error: Exception) -> bool:
    return not (isinstance(error, RequestFailedError) and error.code in NOT_ELSEWHERE)


def is_busy(error: Exception) -> bool:
    """Full, not broken."""
    return isinstance(error, RequestRefusedError) and error.reason in FULL
