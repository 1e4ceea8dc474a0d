from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core.renewal import CERTIFICATE_LIFE_S, SPREAD_S, due_at_unix_s
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.trust import Certificate
from tests.protocol.examples import MESH

BEGUN = 1_700_000_000


def certificate(peer: str = "peer1111", begun: int = BEGUN) -> Certificate:
    return Certificate(
        mesh=MESH,
        peer=PeerId(peer),
        roles=(),
        not_after_unix_s=begun + CERTIFICATE_LIFE_S,
        epoch=0,
    )


@given(st.from_regex("[1-9A-HJ-NP-Za-km-z]{8,60}", fullmatch=True))
def test_it_is_due_between_a_third_of_its_life_and_a_day_later(peer: str) -> None:
    after_s = due_at_unix_s(certificate(peer)) - BEGUN
    assert CERTIFICATE_LIFE_S // 3 <= after_s < CERTIFICATE_LIFE_S // 3 + SPREAD_S


def test_who_joined_together_does_not_come_back_together() -> None:
    peers = (f"peer{number:04}".replace("0", "z") for number in range(200))
    due = sorted(due_at_unix_s(certificate(peer)) for peer in peers)
    assert len(set(due)) > 190
    busiest_hour = max(sum(at <= other < at + 3600 for other in due) for at in due)
    assert busiest_hour < 30


@given(st.integers(0, 2**40), st.integers(0, 2**20))
def test_a_renewed_certificate_is_due_later_by_what_was_gained(begun: int, gained_s: int) -> None:
    before = due_at_unix_s(certificate(begun=begun))
    assert due_at_unix_s(certificate(begun=begun + gained_s)) == before + gained_s


def test_what_was_just_renewed_is_not_due() -> None:
    assert due_at_unix_s(certificate(begun=BEGUN)) > BEGUN
