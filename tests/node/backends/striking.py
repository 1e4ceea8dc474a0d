"""Every fault at every byte of a recorded answer, in virtual time: what may come of it.

`python -m tests.node.backends.striking` strikes all recordings at all bytes (a minute or two).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable
from typing import get_args

import trio
from trio.testing import MockClock

from kowalski.node.backends.seam import BackendError, Completed, CompletionEvent, Delta
from tests.faulty_network import Fault, FaultKind, Recording, open_faulty
from tests.node.backends.asking import ask
from tests.node.backends.test_recordings import ANSWERS, backend_of, request_for

IDLE_TIMEOUT_S = 10.0
# The wait for the head, the longest wait for a piece, and what a fault delays.
PATIENCE_S = 3 * IDLE_TIMEOUT_S

CODES: dict[FaultKind, set[str]] = {
    "end": {"unreachable", "bad_reply"},
    "close": {"unreachable", "bad_reply"},
    "reset": {"unreachable"},
    "stall": {"stalled"},
    "delay": set(),
    "garble": {"bad_reply", "unreachable", "stalled", "rejected", "overloaded", "model_missing"},
    "twice": {"bad_reply", "unreachable", "stalled"},
    "skip": {"bad_reply", "unreachable", "stalled"},
}
"""The codes of the errors that a fault may become; none: it may not fail at all."""

LOSSLESS: frozenset[FaultKind] = frozenset({"end", "close", "reset", "stall", "delay"})
"""Faults that change no byte: an answer that ends well is whole."""


def said(events: Iterable[CompletionEvent]) -> tuple[str, str, str]:
    """All text, all thoughts and all calls."""
    deltas = [event for event in events if isinstance(event, Delta)]
    return (
        "".join(delta.text for delta in deltas),
        "".join(delta.thinking for delta in deltas),
        repr([call for delta in deltas for call in delta.calls]),
    )


def strike_all(recording: str, kind: FaultKind, stride: int = 1, start: int = 0) -> list[str]:
    """What was wrong at every `stride`-th byte; empty if nothing was."""
    give = dataclasses.replace(Recording.read(recording), goes_on_until_close=kind == "close")

    async def run() -> list[str]:
        wrong = []
        for at in range(start, len(give.raw), stride):
            why = await strike(recording, give, Fault(kind, at))
            if why:
                wrong.append(f"{recording}, {kind} at byte {at}: {why}")
        return wrong

    return trio.run(run, clock=MockClock(autojump_threshold=0))


async def strike(recording: str, give: Recording, fault: Fault) -> str:
    """What was wrong with what came of one fault; empty if nothing was."""
    events: list[CompletionEvent] = []
    error: BackendError | None = None
    with trio.move_on_after(PATIENCE_S) as patience:
        async with open_faulty(lambda _: give, fault, piece_bytes=64) as (_network, http):
            backend = backend_of(recording, http)
            try:
                events = await ask(backend, request_for(recording), idle_timeout_s=IDLE_TIMEOUT_S)
            except BackendError as caught:
                error = caught
    if patience.cancelled_caught:
        return "it hung"
    return _judge(recording, fault.kind, events, error)


def _judge(
    recording: str, kind: FaultKind, events: list[CompletionEvent], error: BackendError | None
) -> str:
    if error is not None:
        return "" if error.code in CODES[kind] else f"it became {error}"
    if sum(isinstance(event, Completed) for event in events) != 1:
        return f"it has not one end: {events}"
    if not isinstance(events[-1], Completed):
        return f"something comes behind the end: {events}"
    if kind in LOSSLESS and said(events) != said(ANSWERS[recording][1]):
        return f"it lost something and says nothing: {said(events)}"
    return ""


def main() -> int:
    wrong: list[str] = []
    for recording in ANSWERS:
        for kind in get_args(FaultKind):
            wrong += strike_all(recording, kind)
        sys.stdout.write(f"{recording}: {len(Recording.read(recording).raw)} bytes\n")
        sys.stdout.flush()
    sys.stdout.write("".join(f"{why}\n" for why in wrong) or "nothing was wrong\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
