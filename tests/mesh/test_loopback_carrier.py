"""What is sent arrives in its order, in its time, where the other side can hear it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from kowalski.mesh.loopback_carrier import Carrier
from kowalski.mesh.loopback_wires import Link, Weather, Wires
from kowalski.protocol.ids import PeerId

pytestmark = pytest.mark.trio

A, B, C = PeerId("AAAAAAAA"), PeerId("BBBBBBBB"), PeerId("CCCCCCCC")


class Switched(Wires):
    """Some links are silent, and some peers stand still."""

    def __init__(self, weather: Weather | None = None) -> None:
        super().__init__(5, weather)
        self.silent: set[tuple[PeerId, PeerId]] = set()
        self.asleep_until: dict[PeerId, float] = {}

    def link(self, sender: PeerId, receiver: PeerId) -> Link:
        return Link.SILENT if (sender, receiver) in self.silent else super().link(sender, receiver)

    def awake_at(self, receiver: PeerId) -> float:
        return self.asleep_until.get(receiver, 0.0)


class Carried:
    """A carrier at work, and what it has delivered when."""

    def __init__(self, wires: Switched) -> None:
        self.wires = wires
        self.fell_silent: list[tuple[PeerId, PeerId]] = []
        self.carrier = Carrier(wires, lambda one, other: self.fell_silent.append((one, other)))
        self.heard: list[tuple[float, str]] = []

    def say(self, words: str, sender: PeerId = A, receiver: PeerId = B) -> None:
        self.carrier.post(
            sender,
            receiver,
            len(words),
            lambda: self.heard.append((round(trio.current_time(), 3), words)),
        )

    @property
    def words(self) -> list[str]:
        return [words for _, words in self.heard]


@asynccontextmanager
async def carried(weather: Weather | None = None) -> AsyncIterator[Carried]:
    async with trio.open_nursery() as nursery:
        carried = Carried(Switched(weather))
        nursery.start_soon(carried.carrier.carry)
        yield carried
        nursery.cancel_scope.cancel()


async def test_it_takes_the_time_of_the_wires(autojump_clock: trio.testing.MockClock) -> None:
    async with carried(Weather(latency_s=0.25)) as at:
        at.say("one")
        await trio.sleep(0.1)
        at.say("two")
        await trio.sleep(1)
        assert at.heard == [(0.25, "one"), (0.35, "two")]


async def test_nothing_overtakes_in_one_direction_and_others_do_not_wait_for_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with carried(Weather(jitter_s=1.0)) as at:
        for number in range(100):
            at.say(f"to B {number}")
            at.say(f"to C {number}", receiver=C)
        await trio.sleep(2)
        for receiver in "BC":
            words = [words for words in at.words if words.startswith(f"to {receiver}")]
            assert words == [f"to {receiver} {number}" for number in range(100)]
        assert at.words != sorted(at.words, key=lambda words: int(words.split()[2]))


async def test_what_is_sent_into_silence_comes_in_order_when_it_ends(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with carried(Weather(latency_s=0.01)) as at:
        at.wires.silent.add((A, B))
        at.say("one")
        at.say("back", B, A)
        await trio.sleep(1)
        at.say("two")
        assert at.words == ["back"]
        assert at.fell_silent == [(A, B)]
        at.carrier.release(A, B)
        await trio.sleep(1)
        assert at.words == ["back"], "it is silent still"
        at.wires.silent.clear()
        at.carrier.release(B, A)
        at.say("three")
        await trio.sleep(1)
        assert at.words == ["back", "one", "two", "three"]


async def test_who_stands_still_hears_it_all_in_order_afterwards(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with carried(Weather(latency_s=0.1)) as at:
        at.wires.asleep_until[B] = 5.0
        at.say("one")
        await trio.sleep(1)
        at.say("two")
        at.say("elsewhere", receiver=C)
        await trio.sleep(3.9)
        at.say("three")
        await trio.sleep(5)
        assert at.heard == [(1.1, "elsewhere"), (5.0, "one"), (5.0, "two"), (5.0, "three")]
