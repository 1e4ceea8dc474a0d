"""What becomes of a node's words: lies, silence, and fields of a version to come."""

from __future__ import annotations

import cbor2
import pytest

from kowalski.protocol import codec
from kowalski.protocol.errors import RemoteProtocolError
from kowalski.protocol.messages.membership import RoundTrip
from kowalski.protocol.messages.task import EntryOffered
from kowalski.protocol.messages.telemetry import HotDelta
from simulations import voices
from simulations.virtual_time import JumpingClock
from simulations.voices import Disorder, Voice
from simulations.world import Part, open_world
from tests.protocol.examples import EXAMPLES

HOT = codec.encode(EXAMPLES["telemetry/hot"])


def hot(frame: bytes | None) -> HotDelta:
    assert frame is not None
    message = codec.decode(frame)
    assert isinstance(message, HotDelta)
    return message


def test_an_honest_voice_changes_nothing() -> None:
    assert Voice().gossip(HOT) == HOT
    assert Voice().frames(HOT, []) == [HOT]
    assert Voice().is_plain


def test_a_quiet_one_says_nothing() -> None:
    assert Voice(is_quiet=1).gossip(HOT) is None


def test_lies_are_well_formed_and_about_oneself_alone() -> None:
    assert hot(Voice(lies=[voices.idle]).gossip(HOT)).hot.repl.running == 0
    assert hot(Voice(lies=[voices.busy]).gossip(HOT)).hot.memory_used == 1.0
    assert hot(Voice(lies=[voices.fast]).gossip(HOT)).hot.tokens_per_s == {"m": 99_999.0}
    roster = codec.encode(EXAMPLES["trust/roster"])
    assert Voice(lies=[voices.busy]).gossip(roster) == roster


def test_what_is_beyond_reason_is_no_message_of_ours() -> None:
    said = Voice(lies=[voices.odd]).gossip(HOT)
    assert said is not None
    with pytest.raises(RemoteProtocolError):
        codec.decode(said)


def test_a_newer_voice_adds_what_we_do_not_know_and_we_read_the_rest() -> None:
    newer = Voice(is_newer=True)
    assert not newer.is_plain
    for frame in (*newer.frames(HOT, []), newer.gossip(HOT)):
        assert frame is not None
        assert "x_newer" in cbor2.loads(frame)[2]
        assert codec.decode(frame) == EXAMPLES["telemetry/hot"]
    (frame,) = newer.frames(codec.encode(RoundTrip()), [])
    assert codec.decode(frame) == RoundTrip()


def test_a_voice_in_disorder_loses_doubles_and_turns_round_entries_and_nothing_else() -> None:
    voice = Voice(disorder=Disorder("any"))
    offered = EXAMPLES["task/entry"]
    assert isinstance(offered, EntryOffered)
    frame, held = codec.encode(offered), list[bytes]()
    assert voice.frames(HOT, held) == [HOT]
    said = [[codec.decode(one) for one in voice.frames(frame, held)] for _ in range(60)]
    terms = {one.entry.term for frames in said for one in frames if isinstance(one, EntryOffered)}
    assert {len(frames) for frames in said} >= {0, 1, 2}
    assert len(terms) == 2
    assert offered.entry.term in terms
    assert not voice.is_plain


@pytest.mark.trio
async def test_a_mesh_in_which_one_speaks_newer_meets_and_works(virtual_time: JumpingClock) -> None:
    async with open_world([Part(speaks_newer=True), Part(models=("m",))]) as world:
        task = world.submit(0, "```python\nsay hi\nask what\n```", mode="blocks")
        result = await world.result(0, task)
        assert result.answer is not None
        assert "reply to: what" in result.answer.answer
