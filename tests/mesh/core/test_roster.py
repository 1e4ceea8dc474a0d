from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core.roster import PEERS_MAX, RevocationList, check
from kowalski.protocol.codec import encode
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.trust import Revocation, SignedRevocation
from tests.protocol.examples import MESH


def numbered(number: int) -> PeerId:
    return PeerId(f"peer{number:04}".replace("0", "z"))


PEERS = tuple(numbered(number) for number in range(5))


def revocation(peer: PeerId, epoch: int, why: str = "") -> Revocation:
    return Revocation(mesh=MESH, peer=peer, epoch=epoch, issued_unix_s=0, why=why)


def signed(said: Revocation) -> SignedRevocation:
    return SignedRevocation(frame=encode(said), root_key=bytes(32), signature=bytes(64))


def heard(*said: Revocation, by: RevocationList | None = None) -> RevocationList:
    roster = by or RevocationList()
    for one in said:
        roster = roster.hear(one, signed(one))
        check(roster)
    return roster


def meaning(roster: RevocationList) -> dict[PeerId, int]:
    return {peer: one.revocation.epoch for peer, one in roster.revoked.items()}


REVOCATIONS = st.lists(
    st.builds(revocation, st.sampled_from(PEERS), st.integers(0, 4), st.sampled_from("ab")),
    max_size=12,
)


def test_an_epoch_and_all_before_it_are_revoked_and_none_after() -> None:
    roster = heard(revocation(PEERS[0], 2))
    assert [roster.is_revoked(PEERS[0], epoch) for epoch in range(4)] == [True, True, True, False]
    assert not roster.is_revoked(PEERS[1], 0)


@given(REVOCATIONS, REVOCATIONS)
def test_who_hears_the_same_in_another_order_means_the_same(
    some: list[Revocation], more: list[Revocation]
) -> None:
    assert meaning(heard(*some, *more)) == meaning(heard(*more, *some))
    assert heard(*some, *more).version == heard(*more, *some).version


@given(REVOCATIONS, REVOCATIONS, REVOCATIONS)
def test_it_does_not_matter_what_was_merged_first(
    a: list[Revocation], b: list[Revocation], c: list[Revocation]
) -> None:
    def merged(one: RevocationList, other: RevocationList) -> RevocationList:
        return heard(*(known.revocation for known in other.revoked.values()), by=one)

    ra, rb, rc = heard(*a), heard(*b), heard(*c)
    assert meaning(merged(merged(ra, rb), rc)) == meaning(merged(ra, merged(rb, rc)))


@given(REVOCATIONS)
def test_what_is_known_is_no_news(said: list[Revocation]) -> None:
    roster = heard(*said)
    assert heard(*said, by=roster) is roster


@given(REVOCATIONS, REVOCATIONS)
def test_nothing_brings_a_revoked_certificate_back(
    some: list[Revocation], more: list[Revocation]
) -> None:
    before, after = heard(*some), heard(*some, *more)
    assert after.version >= before.version
    for peer in PEERS:
        for epoch in range(5):
            assert after.is_revoked(peer, epoch) >= before.is_revoked(peer, epoch)


def test_what_is_told_on_is_what_was_heard_word_for_word() -> None:
    first, second = revocation(PEERS[0], 0), revocation(PEERS[1], 3)
    assert heard(first, second).message().revocations == (signed(first), signed(second))


def test_a_full_list_takes_no_more_peers_but_higher_epochs() -> None:
    roster = heard(*(revocation(numbered(n), 0) for n in range(PEERS_MAX)))
    assert heard(revocation(PeerId("another1"), 0), by=roster) is roster
    assert heard(revocation(PEERS[0], 1), by=roster).is_revoked(PEERS[0], 1)
