"""What came of a story, in words."""

from __future__ import annotations

from kowalski.protocol.messages.base import Refused
from simulations import plan
from simulations.reports import Report
from simulations.scenarios import load
from tests.simulations.looking import said


def test_what_happened_last_is_told_in_words_once_somebody_reads_it() -> None:
    report = Report(plan.draw(load("home"), 1))
    report.last = ("healed", said(Refused(reason="busy")))
    assert report.events[0] == "healed"
    assert "0 -> 1 base/refused reason=busy" in report.events[1]
