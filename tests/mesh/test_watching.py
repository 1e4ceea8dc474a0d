"""What a watched node tells, and that an unwatched one tells nobody."""

from __future__ import annotations

from kowalski.mesh.driver import Driver
from kowalski.mesh.watching import Recorded, watcher
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.base import Message


class Notes:
    """A `Watcher`."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, object, float, tuple[object, ...]]] = []
        self.said: list[tuple[Message, bool, bool]] = []

    def stepped(
        self, driver: Recorded, event: object, now: float, effects: tuple[object, ...]
    ) -> None:
        self.steps.append((driver.machine, event, now, effects))

    def said_to_itself(
        self, me: PeerId, conversation: object, message: Message, *, by_asker: bool, is_last: bool
    ) -> None:
        self.said.append((message, by_asker, is_last))


def step(state: int, event: str, now: float) -> tuple[int, tuple[str, ...]]:
    return state + 1, (f"{event} at {now:g}",)


def driver() -> Driver[int, str, str]:
    return Driver(
        0,
        step=step,
        wake_at=lambda _state: 0.0,
        time_passed="tick",
        perform=lambda _effect: None,
        clock=lambda: 7.0,
    )


def test_a_machine_tells_who_was_watching_when_it_was_made() -> None:
    notes = Notes()
    token = watcher.set(notes)
    watched = driver()
    watcher.reset(token)
    watched.handle("one")
    driver().handle("two")
    assert notes.steps == [(__name__, "one", 7.0, ("one at 7",))]
