"""Errors say whose fault it was, and what a peer said."""

from __future__ import annotations

import pytest

from kowalski.protocol import errors


@pytest.mark.parametrize(
    "error",
    [
        errors.LocalProtocolError("x"),
        errors.RemoteProtocolError("x"),
        errors.PeerUnreachableError("x"),
        errors.RequestRefusedError("busy"),
        errors.RequestFailedError("timeout"),
        errors.ConfigError("x"),
    ],
)
def test_everything_raised_on_purpose_has_one_root(error: Exception) -> None:
    assert isinstance(error, errors.KowalskiError)


def test_a_bug_here_is_told_from_a_misbehaving_peer() -> None:
    assert not issubclass(errors.LocalProtocolError, errors.RemoteProtocolError)
    assert not issubclass(errors.RemoteProtocolError, errors.LocalProtocolError)
    assert issubclass(errors.LocalProtocolError, errors.ProtocolError)
    assert issubclass(errors.RemoteProtocolError, errors.ProtocolError)


def test_a_refusal_keeps_what_the_peer_said() -> None:
    refused = errors.RequestRefusedError("busy", "2 running", 1.5)
    assert (refused.reason, refused.detail, refused.retry_after_s) == ("busy", "2 running", 1.5)
    assert str(refused) == "busy: 2 running"
    assert str(errors.RequestRefusedError("stale")) == "stale"


def test_a_failure_keeps_its_code() -> None:
    failed = errors.RequestFailedError("backend", "closed early")
    assert (failed.code, failed.detail) == ("backend", "closed early")
    assert str(failed) == "backend: closed early"
    assert str(errors.RequestFailedError("timeout")) == "timeout"
