"""What is made of many checks."""

from __future__ import annotations

from kowalski.node.core.checks import Check, as_reply


def test_a_reply_carries_the_worst_verdict_and_every_check_in_order() -> None:
    checks = [Check("a", "ok", "fine"), Check("b", "warn", "x", "y")]
    reply = as_reply(checks)
    assert reply["verdict"] == "warn"
    assert reply["checks"] == [
        {"name": "a", "verdict": "ok", "found": "fine", "cure": ""},
        {"name": "b", "verdict": "warn", "found": "x", "cure": "y"},
    ]
    assert as_reply([*checks, Check("c", "fail", "")])["verdict"] == "fail"
    assert as_reply([])["verdict"] == "ok"
