"""What systemd is told."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from kowalski.node.service_notices import ServiceNotices


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + address[1:] if address.startswith("@") else address)
        listener.setblocking(False)
        yield listener


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_readiness_and_the_end_are_told(tmp_path: Path, kind: str) -> None:
    address = str(tmp_path / "notify") if kind == "path" else f"@kowalski-test-{os.getpid()}"
    with listening(address) as listener:
        notices = ServiceNotices({"NOTIFY_SOCKET": address})
        notices.ready("peer x")
        assert listener.recv(1000) == b"READY=1\nSTATUS=peer x"
        notices.stopping()
        assert listener.recv(1000) == b"STOPPING=1"


def test_nobody_who_asked_is_nobody_told(tmp_path: Path) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": str(tmp_path / "gone")}, {"NOTIFY_SOCKET": "vsock:1"}):
        ServiceNotices(environ).ready("x")


@pytest.mark.trio
async def test_the_watchdog_hears_of_us_twice_in_its_time(
    tmp_path: Path, autojump_clock: object
) -> None:
    address = str(tmp_path / "notify")
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "10000000"}
    with listening(address) as listener:
        with trio.move_on_after(12):
            await ServiceNotices(environ).keep_watchdog()
        heard = [listener.recv(100) for _ in range(3)]
        assert heard == [b"WATCHDOG=1"] * 3
        with pytest.raises(BlockingIOError):
            listener.recv(100)


@pytest.mark.trio
@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "x"},
        {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"},
    ],
)
async def test_a_watchdog_that_wants_nothing_of_us_gets_nothing(environ: dict[str, str]) -> None:
    await ServiceNotices(environ).keep_watchdog()
