"""Errors by whose fault they are. A `no` from a peer is no error: it is a reply (`Refused`)."""

from __future__ import annotations


class KowalskiError(Exception):
    """The root of everything this project raises on purpose."""


class ProtocolError(KowalskiError):
    """Somebody broke the wire format."""


class LocalProtocolError(ProtocolError):
    """We were about to break it: a bug here, to be loud about."""


class RemoteProtocolError(ProtocolError):
    """A peer broke it: drop the frame, think less of the peer."""


class PeerUnreachableError(KowalskiError):
    """Weather: no connection, a reset, or silence until the deadline."""


class RequestRefusedError(KowalskiError):
    """A peer answered `no`; `reason` and `retry_after_s` are what it said."""

    def __init__(self, reason: str, detail: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.retry_after_s = retry_after_s


class RequestFailedError(KowalskiError):
    """A peer tried and failed; `code` is one of the codes of `messages.base.Failed`."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail


class ConfigError(KowalskiError):
    """The operator's: a bad flag, variable, file or join line. One line, exit code 2."""
