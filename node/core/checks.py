"""What a look at one thing found, for the command `doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at; `cure` is empty where nothing needs doing."""

    name: str
    verdict: Verdict
    found: str
    cure: str = ""
