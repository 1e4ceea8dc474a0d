"""Answers of a moment become one entry, in order, each once."""

from __future__ import annotations

import pytest
import trio

from kowalski.node.services.gathered_answers import (
    ENTRY_ANSWERS_MAX,
    ENTRY_BYTES_MAX,
    MOMENT_S,
    GatheredAnswers,
)
from kowalski.protocol import codec
from kowalski.protocol.ids import content_hash
from kowalski.protocol.limits import FRAME_BYTES_MAX
from kowalski.protocol.messages.journal import SessionEvent, SubCallAnswered, SubCallsAnswered
from simulations.virtual_time import JumpingClock


def answer(ordinal: int, text: str = "fine") -> SubCallAnswered:
    return SubCallAnswered(cell=0, ordinal=ordinal, prompt=content_hash(b"q"), text=text)


def ordinals(event: SessionEvent) -> list[int]:
    match event:
        case SubCallsAnswered(answers=answers):
            return [one.ordinal for one in answers]
        case SubCallAnswered(ordinal=ordinal):
            return [ordinal]
        case _:
            raise AssertionError(event)


class Watched:
    """What became entries, and whose answers were told to be in the journal by then."""

    def __init__(self) -> None:
        self.entries: list[SessionEvent] = []
        self.told: list[int] = []
        self.gathered = GatheredAnswers(self.entries.append)

    def add(self, answered: SubCallAnswered) -> None:
        def written(one: SubCallAnswered) -> None:
            in_journal = {number for entry in self.entries for number in ordinals(entry)}
            assert one.ordinal in in_journal, "it is told before it is written"
            self.told.append(one.ordinal)

        self.gathered.add(answered, written)


@pytest.mark.trio
async def test_what_comes_within_a_moment_is_one_entry_and_told_when_it_is_written(
    virtual_time: JumpingClock,
) -> None:
    watched = Watched()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.gathered.keep_writing)
        watched.add(answer(0))
        await trio.sleep(MOMENT_S / 2)
        watched.add(answer(1))
        assert watched.told == []
        await trio.sleep(MOMENT_S)
        assert [ordinals(entry) for entry in watched.entries] == [[0, 1]]
        watched.add(answer(2))
        await trio.sleep(MOMENT_S * 1.01)
        assert [ordinals(entry) for entry in watched.entries] == [[0, 1], [2]]
        assert watched.told == [0, 1, 2]
        nursery.cancel_scope.cancel()


def test_nothing_is_written_twice() -> None:
    watched = Watched()
    watched.add(answer(0))
    watched.gathered.write()
    watched.gathered.write()
    assert [ordinals(entry) for entry in watched.entries] == [[0]]


def test_an_entry_holds_so_many_answers_and_fits_its_frame() -> None:
    watched = Watched()
    for ordinal in range(ENTRY_ANSWERS_MAX + 1):
        watched.add(answer(ordinal))
    heavy = "x" * (ENTRY_BYTES_MAX // 2)
    for ordinal in range(1000, 1005):
        watched.add(answer(ordinal, heavy))
    watched.gathered.write()
    assert [number for entry in watched.entries for number in ordinals(entry)] == [
        *range(ENTRY_ANSWERS_MAX + 1),
        *range(1000, 1005),
    ]
    assert len(ordinals(watched.entries[0])) == ENTRY_ANSWERS_MAX
    assert all(len(codec.encode(entry)) < FRAME_BYTES_MAX for entry in watched.entries)
