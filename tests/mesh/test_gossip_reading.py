"""What is heard on a topic: messages of ours, and whatever else a member may say."""

from __future__ import annotations

import pytest

from kowalski.mesh.gossip_reading import message_of
from kowalski.mesh.transport import Gossip
from kowalski.protocol import codec
from kowalski.protocol.ids import PeerId
from kowalski.protocol.limits import GOSSIP_BYTES_MAX
from kowalski.protocol.messages.inference import TokensAsked
from kowalski.protocol.messages.trust import Roster

SOMEBODY = PeerId("12D3KooWsomebody")
FRAME = codec.encode(Roster())
LONG = codec.encode(TokensAsked(model="m", texts=("x" * GOSSIP_BYTES_MAX,), remaining_s=1.0))


def test_a_message_of_ours_is_read_whatever_its_kind() -> None:
    assert message_of(Gossip(SOMEBODY, FRAME)) == Roster()


def test_gossip_that_many_read_is_decoded_once() -> None:
    gossip = Gossip(SOMEBODY, FRAME)
    assert message_of(gossip) is message_of(gossip)
    assert gossip == Gossip(SOMEBODY, FRAME)


@pytest.mark.parametrize("data", [b"", b"garbage", FRAME[:-1], FRAME + b"x", LONG])
def test_anything_else_says_nothing(data: bytes) -> None:
    assert message_of(Gossip(SOMEBODY, data)) is None
