"""Sessions of MCP over HTTP: what a client has under way, so that it can be cancelled by name.

A session's id is nobody's permission: whoever may speak to the node at all may speak without one.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import trio

SESSIONS_MAX = 256
"""A client whose session had to make room begins another, as the specification wants."""


class Session:
    """The calls of one client that are under way."""

    def __init__(self) -> None:
        self._calls: dict[str, trio.CancelScope] = {}

    @contextmanager
    def under_way(self, number: object) -> Iterator[trio.CancelScope]:
        """The call of this number, which `cancel` ends while the block lasts."""
        scope = self._calls[repr(number)] = trio.CancelScope()
        try:
            with scope:
                yield scope
        finally:
            if self._calls.get(repr(number)) is scope:
                del self._calls[repr(number)]

    def cancel(self, number: object) -> None:
        """One that is over, or never was, is no mistake: they may have crossed."""
        if (scope := self._calls.get(repr(number))) is not None:
            scope.cancel()

    def cancel_all(self) -> None:
        for scope in self._calls.values():
            scope.cancel()


class Sessions:
    """The latest used last."""

    def __init__(self, sessions_max: int = SESSIONS_MAX) -> None:
        self._max = sessions_max
        self._of: dict[str, Session] = {}

    def open(self) -> str:
        """The id of a new one. Where there are too many the one that was used longest ago goes."""
        if len(self._of) >= self._max:
            del self._of[next(iter(self._of))]  # what it has under way goes on
        name = secrets.token_urlsafe(24)
        self._of[name] = Session()
        return name

    def find(self, name: str) -> Session | None:
        session = self._of.pop(name, None)
        if session is not None:
            self._of[name] = session
        return session

    def end(self, name: str) -> bool:
        """End it and all that it has under way; False where there is none."""
        session = self._of.pop(name, None)
        if session is not None:
            session.cancel_all()
        return session is not None
