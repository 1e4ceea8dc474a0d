"""Calls that outlive their askers, on the wire."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from kowalski.protocol.messages.calls import HELD_MAX, CallsHeld


def test_no_more_calls_are_told_than_fit_a_frame() -> None:
    names = tuple(f"turn-{number}" for number in range(HELD_MAX))
    assert CallsHeld(calls=names).calls == names
    with pytest.raises(ValidationError):
        CallsHeld(calls=(*names, "turn-0"))


@pytest.mark.parametrize("name", ["", "Turn-1", "turn 1", "x" * 65])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        CallsHeld(calls=(name,))
