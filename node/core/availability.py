"""When the owner of a device wants it for himself: no work of others then.

The owner's own requests are never refused by these. Times are minutes of the local day.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import floor

DAY_MINUTES = 24 * 60
_HOURS = re.compile(r"\s*(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})\s*")


@dataclass(frozen=True, slots=True)
class Hours:
    """From one minute of the day to another, which may be on the next day."""

    start: int
    end: int

    def include(self, minute: int) -> bool:
        if self.start <= self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end


@dataclass(frozen=True, slots=True)
class Availability:
    """`cpu_share` of the processors at most, in whole ones, one at least."""

    cpu_share: float = 1.0
    quiet_hours: tuple[Hours, ...] = ()
    works_on_battery: bool = False
    stands_by: bool = False

    def slots(self, slots: int) -> int:
        """How many programs at a time, of those that there would be."""
        return max(1, floor(self.cpu_share * slots + 1e-9)) if slots else 0

    def why_paused(self, minute: int, *, on_battery: bool) -> str:
        """Why there is no work for others now; empty if there is."""
        for hours in self.quiet_hours:
            if hours.include(minute):
                return f"quiet hours until {hours.end // 60:02}:{hours.end % 60:02}"
        if on_battery and not self.works_on_battery:
            return "on battery"
        return ""


def parse_hours(text: str) -> tuple[Hours, ...]:
    """`22:00-07:00`, or several by commas.

    Raises:
        ValueError: it is not like that; says what was expected.
    """
    return tuple(_parse_one(part) for part in text.split(",") if part.strip())


def _parse_one(text: str) -> Hours:
    found = _HOURS.fullmatch(text)
    if found is None:
        raise ValueError(f"{text.strip()!r} is not like 22:00-07:00")
    start, end = (_minute(found[at], found[at + 1]) for at in (1, 3))
    if start == end:
        raise ValueError(f"{text.strip()!r} begins and ends at the same time")
    return Hours(start, end % DAY_MINUTES)


def _minute(hour: str, minute: str) -> int:
    at = int(hour) * 60 + int(minute)
    if int(minute) > 59 or at > DAY_MINUTES:
        raise ValueError(f"{hour}:{minute} is no time of day")
    return at
