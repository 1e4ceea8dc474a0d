"""How members tell each other who is there."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from kowalski.protocol.codec import decode, encode
from kowalski.protocol.ids import PeerId
from kowalski.protocol.limits import CLAIMS_MAX, ROWS_MAX
from kowalski.protocol.messages.swim import ClaimsTold, MemberClaim, Probe, SyncAnswered
from tests.protocol.examples import CLAIMS, COORDINATOR, WORKER

LONGEST = MemberClaim(
    peer=PeerId("1" * 64), state="suspect", incarnation=2**53, accuser=PeerId("2" * 64)
)


def test_a_probe_without_news_is_tiny_and_one_full_of_news_still_one_packet() -> None:
    assert len(encode(Probe())) < 20
    suspect = MemberClaim(peer=WORKER, state="suspect", incarnation=1000, accuser=COORDINATOR)
    assert len(encode(Probe(claims=(suspect,) * 8))) < 1400


def test_a_whole_table_of_the_longest_names_fits_a_frame() -> None:
    whole = SyncAnswered(digest="0" * 16, rows=(LONGEST,) * ROWS_MAX)
    assert decode(encode(whole)) == whole
    told = ClaimsTold(claims=(LONGEST,) * ROWS_MAX)
    assert decode(encode(told)) == told


@pytest.mark.parametrize("count", [CLAIMS_MAX + 1, ROWS_MAX + 1])
def test_a_message_with_more_claims_than_agreed_is_refused(count: int) -> None:
    kind = Probe if count <= ROWS_MAX else ClaimsTold
    with pytest.raises(ValidationError, match="claims"):
        kind(claims=CLAIMS[:1] * count)


@pytest.mark.parametrize("state", ["dead", "", "ALIVE"])
def test_a_state_that_swim_does_not_know_is_refused(state: str) -> None:
    with pytest.raises(ValidationError, match="state"):
        MemberClaim(peer=WORKER, state=state, incarnation=1)  # type: ignore[arg-type]
