"""What a figure was measured on, for the head of every table."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

LIBRARIES = ("libp2p", "trio", "cbor2", "pydantic", "zeroconf")


@dataclass(frozen=True, slots=True)
class Machine:
    """`load`: the system's load average of the last minute, when the measurement began."""

    date: str
    cores: int
    platform: str
    python: str
    versions: dict[str, str]
    load: float


def this_one() -> Machine:
    return Machine(
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        os.cpu_count() or 1,
        platform.platform(),
        platform.python_version(),
        {name: version(name) for name in LIBRARIES},
        os.getloadavg()[0],
    )


def describe() -> str:
    """Two lines: the machine and the moment, the versions."""
    one = this_one()
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    versions = ", ".join(f"{name} {number}" for name, number in one.versions.items())
    return (
        f"{one.date}, {one.cores} cores, {one.platform}, load average {load}\n"
        f"Python {one.python}, {versions}"
    )
