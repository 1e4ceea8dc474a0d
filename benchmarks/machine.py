"""What a figure was measured on, for the head of every table."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version

LIBRARIES = ("libp2p", "trio", "cbor2", "pydantic", "zeroconf")


def describe() -> str:
    """Two lines: the machine and the moment, the versions."""
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores, {platform.platform()}, "
        f"load average {load}\nPython {platform.python_version()}, {versions}"
    )
