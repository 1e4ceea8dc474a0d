"""What works at a session is given by whoever leads it: the coordination, or a parent session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kowalski.node.services.lease_watch import LeaseWatch
from kowalski.protocol.errors import RequestFailedError, RequestRefusedError
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.placement import Claim
from kowalski.protocol.messages.task import TaskSpec
from kowalski.rlm.session import Session, SessionLimits


@dataclass(frozen=True, slots=True)
class Term:
    """The task that is worked at, in one term, and what its coordinator gives the hands."""

    task: TaskId
    term: Callable[[], int]
    """It rises when the submitter comes back and appoints the same peer again."""
    spec: TaskSpec
    session: Callable[[], Session]
    """As it is now."""
    record: Callable[[journal.SessionEvent], None]
    """Journal something that the session wants nothing for: a cell began, a sub-call was answered;
    the session knows of it at once."""
    progress: Callable[..., None]
    lease: LeaseWatch
    """It is asked before anything is sent to a peer."""
    remaining_s: Callable[[], float]
    claim: Claim
    """In whose name the work queues at workers, and how urgent it is."""
    limits_of: Callable[[str], SessionLimits]
    """What fits the window of a model."""
    holders: Callable[[ContentRef], ContentRef]
    """A reference with all who hold it, as far as the coordinator knows."""


def code_of(error: Exception, otherwise: str) -> str:
    """The machine-readable word of what a request raised."""
    if isinstance(error, RequestRefusedError):
        return error.reason
    if isinstance(error, RequestFailedError):
        return error.code
    return otherwise
