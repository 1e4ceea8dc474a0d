"""What a look at one thing found, for the command `doctor`."""

from __future__ import annotations

from collections.abc import Sequence
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


def as_reply(checks: Sequence[Check]) -> dict[str, object]:
    """The result of the verb `doctor`; `verdict` is the worst of all."""
    order: tuple[Verdict, ...] = ("fail", "warn", "ok")
    worst = min((check.verdict for check in checks), key=order.index, default="ok")
    rows = [
        {"name": each.name, "verdict": each.verdict, "found": each.found, "cure": each.cure}
        for each in checks
    ]
    return {"verdict": worst, "checks": rows}
