"""Telling systemd how a node is (sd_notify(3)): a datagram to the socket that it names, if any."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

import trio

SOCKET = "NOTIFY_SOCKET"
WATCHDOG = "WATCHDOG_USEC"
PID = "WATCHDOG_PID"


class ServiceNotices:
    """Does nothing where nobody asked to be told."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get(SOCKET, "")
        self._watchdog_s = _watchdog_s(environ)

    def ready(self, status: str) -> None:
        self._tell("READY=1", f"STATUS={status}")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    async def keep_watchdog(self) -> None:
        """Say that the event loop turns, twice as often as must be; until cancelled."""
        if self._watchdog_s is None:
            return
        while True:
            self._tell("WATCHDOG=1")
            await trio.sleep(self._watchdog_s / 2)

    def _tell(self, *lines: str) -> None:
        if not self._address.startswith(("/", "@")):
            return
        # An abstract address is written with an @ where it has a zero byte.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to_it:
            to_it.setblocking(False)
            to_it.sendto("\n".join(lines).encode(errors="replace"), address)


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """How often systemd wants to hear of this process; None if not at all."""
    if environ.get(PID, str(os.getpid())) != str(os.getpid()):
        return None
    given = environ.get(WATCHDOG, "")
    return int(given) / 1e6 if given.isdigit() and int(given) > 0 else None
