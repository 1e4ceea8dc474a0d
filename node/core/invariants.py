"""The promises of a task, by name, held where they could first be broken.

A broken one is a defect of ours. It raises before anything of the step is written or sent, and the
name says which promise it was: the same names stand in docs/architecture.md, in the histories of
the tests and in what the simulator watches.
"""

from __future__ import annotations

from typing import Literal

from kowalski.protocol.errors import LocalProtocolError

Invariant = Literal[
    "term_monotone",
    "one_coordinator_per_term",
    "fence_monotone",
    "visible_once",
    "prefix_chain",
    "no_stale_visible",
    "lease_stop",
    "no_lost_ack",
    "id_idempotent",
    "detached_majority",
    "single_authority",
    "attempt_budget",
    "weights_only_move_owner",
]


class InvariantError(LocalProtocolError):
    """`name` was broken."""

    def __init__(self, name: Invariant, fact: str) -> None:
        super().__init__(f"{name}: {fact}")
        self.name = name


def must(holds: bool, name: Invariant, fact: str) -> None:  # noqa: FBT001 reads like assert
    """Raises InvariantError: it does not hold. `fact` says what was seen."""
    if not holds:
        raise InvariantError(name, fact)
