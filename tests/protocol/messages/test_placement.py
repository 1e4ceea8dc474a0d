import pytest
from pydantic import ValidationError

from kowalski.protocol.codec import decode, encode
from kowalski.protocol.messages.inference import ChatMessage, CompletionAsked
from kowalski.protocol.messages.placement import Claim, Offer, OfferAsked


def test_work_that_claims_nothing_says_nothing_of_it() -> None:
    asked = CompletionAsked(
        model="m", messages=(ChatMessage(role="user", content="?"),), remaining_s=1.0
    )
    assert b"claim" not in encode(asked)
    decoded = decode(encode(asked))
    assert isinstance(decoded, CompletionAsked)
    assert decoded.claim == Claim() == Claim(submitter=None, priority="normal", reservation=None)


def test_a_question_that_reserves_nothing_is_the_default() -> None:
    assert OfferAsked(kind="code", remaining_s=1.0).reserve_s == 0.0


@pytest.mark.parametrize("wait_s", [-1.0, float("nan"), float("inf")])
def test_an_offer_of_an_impossible_time_is_no_offer(wait_s: float) -> None:
    with pytest.raises(ValidationError):
        Offer(wait_s=wait_s, service_s=1.0)


@pytest.mark.parametrize("priority", ["urgent", "", 1])
def test_there_are_three_priorities(priority: object) -> None:
    with pytest.raises(ValidationError):
        Claim.model_validate({"priority": priority})
