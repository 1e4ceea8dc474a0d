"""How often lost work is begun again, and after what pause: a task's `RetryPolicy`, applied."""

from __future__ import annotations

from typing import Protocol

from kowalski.protocol.messages.task import Failover, RetryPolicy

PAUSE_S_MAX = 600.0


class Retried(Protocol):
    """What of a task says how often it is begun again."""

    @property
    def failover(self) -> Failover: ...
    @property
    def retry(self) -> RetryPolicy: ...


def pause_s(policy: RetryPolicy, retries: int) -> float:
    """How long to wait before one more retry, after so many."""
    if not policy.is_exponential:
        return policy.delay_s
    return min(PAUSE_S_MAX, policy.delay_s * 2.0 ** min(retries, 64))


def may_retry(spec: Retried, retries: int) -> bool:
    """Whether work of this task that was lost may be begun again, after so many retries."""
    match spec.failover:
        case "fail":
            return False
        case "queue":
            return True
        case "redistribute":
            return retries < spec.retry.retries_max
