"""What a request raised, as a word for programs."""

from __future__ import annotations

from kowalski.node.services.session_term import code_of
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RequestFailedError,
    RequestRefusedError,
)


def test_a_refusal_and_a_failure_say_it_themselves_and_the_rest_is_named_by_the_caller() -> None:
    assert code_of(RequestRefusedError("busy", "full", 2.0), "failed") == "busy"
    assert code_of(RequestFailedError("too_long", "400 kB"), "failed") == "too_long"
    assert code_of(PeerUnreachableError("gone"), "model_failed") == "model_failed"
