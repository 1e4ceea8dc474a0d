from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kowalski.mesh.certificate_book import EPOCH_MAX, PEERS_MAX, CertificateBook
from kowalski.mesh.identity import identity_from_seed
from kowalski.mesh.membership_certificates import (
    CERTIFICATE_LIFE_S,
    CLOCK_GRACE_S,
    Admin,
    CertificateError,
    MeshRoot,
    certify,
    revoke,
    verify,
)
from kowalski.protocol import codec
from kowalski.protocol.errors import ConfigError
from kowalski.protocol.ids import Address, PeerId
from kowalski.protocol.messages.membership import RoundTrip
from kowalski.protocol.messages.trust import (
    KnownMember,
    Role,
    Roster,
    SignedCertificate,
    SignedRevocation,
)

ME, A, ADMIN = PeerId("MMMMMMMM"), PeerId("AAAAAAAA"), PeerId("BBBBBBBB")
NOW = 1_700_000_000
ROOT = MeshRoot(bytes(range(32)))
HERE = (Address("/memory/a"),)


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(clock: Clock) -> CertificateBook:
    return CertificateBook(ME, ROOT.mesh, clock)


def told_of(
    peer: PeerId = A, roles: tuple[Role, ...] = ("submit",), epoch: int = 0, root: MeshRoot = ROOT
) -> KnownMember:
    signed = root.certify(peer, roles, now_unix_s=NOW, epoch=epoch)
    return KnownMember(certificate=signed, addresses=HERE)


def see_admin(book: CertificateBook, clock: Clock) -> None:
    signed = ROOT.certify(ADMIN, ("admin",), now_unix_s=int(clock.now))
    book.enter(ADMIN, signed, book.check(ADMIN, signed))
    book.see(ADMIN)


def test_strangers_have_no_roles_and_are_not_admitted(book: CertificateBook) -> None:
    assert not book.admits(A)
    assert book.roles(A) == ()
    assert book.signed(A) is None


def test_a_peer_we_were_told_of_is_believed_by_its_certificate(book: CertificateBook) -> None:
    member = told_of()
    assert book.meet(member) == A
    assert book.admits(A)
    assert book.roles(A) == ("submit",)
    assert book.signed(A) == member.certificate


@pytest.mark.parametrize(
    "frame", [codec.encode(RoundTrip()), b"garbage", b""], ids=["another kind", "garbage", "empty"]
)
def test_what_is_no_certificate_is_not_believed(book: CertificateBook, frame: bytes) -> None:
    signed = SignedCertificate(
        frame=frame, root_key=ROOT.public_key, signature=ROOT._key.sign(frame)
    )
    assert book.meet(KnownMember(certificate=signed, addresses=HERE)) is None


def test_members_of_other_meshes_and_we_ourselves_are_not_met(book: CertificateBook) -> None:
    assert book.meet(told_of(root=MeshRoot(bytes(32)))) is None
    assert not book.admits(A)
    assert book.meet(told_of(ME)) is None


def test_gossip_is_admitted_as_long_as_a_connection_would_be(
    book: CertificateBook, clock: Clock
) -> None:
    member = told_of()
    book.meet(member)
    clock.now = NOW + CERTIFICATE_LIFE_S + CLOCK_GRACE_S
    verify(member.certificate, mesh=ROOT.mesh, peer=A, now_unix_s=clock.now)
    assert book.admits(A)
    clock.now += 1
    see_admin(book, clock)
    assert not book.admits(A)
    assert book.meet(member) is None


def test_whom_we_know_by_the_same_certificate_is_met_until_it_is_revoked(
    book: CertificateBook,
) -> None:
    member = told_of()
    assert book.meet(member) == book.meet(member) == A
    book.hear_roster(Roster(revocations=(revoke(ROOT, A, epoch=0, now_unix_s=NOW, why=""),)))
    assert book.meet(member) is None


def test_somebody_elses_old_copy_of_a_certificate_changes_nothing(book: CertificateBook) -> None:
    old, new = told_of(roles=("submit", "admin")), told_of(roles=("submit",), epoch=1)
    book.meet(new)
    assert book.meet(old) == A
    assert book.roles(A) == ("submit",)
    newest = told_of(roles=("repl",), epoch=2)
    book.meet(newest)
    assert book.roles(A) == ("repl",)


def test_what_a_peer_has_proven_itself_counts(book: CertificateBook) -> None:
    book.meet(told_of(epoch=5))
    own = told_of(roles=("fold",))
    checked = verify(own.certificate, mesh=ROOT.mesh, peer=A, now_unix_s=NOW)
    book.enter(A, own.certificate, checked, "kitchen")
    assert book.roles(A) == ("fold",)
    assert book.name(A) == "kitchen"


def test_a_peer_without_a_name_is_called_by_the_end_of_its_id(book: CertificateBook) -> None:
    assert book.name(PeerId("xxxx12345678")) == "12345678"


def test_the_book_has_a_last_page(book: CertificateBook) -> None:
    member = told_of()
    checked = verify(member.certificate, mesh=ROOT.mesh, peer=A, now_unix_s=NOW)
    for number in range(PEERS_MAX):
        book.enter(PeerId(f"peer{number:04}"), member.certificate, checked)
    assert book.meet(member) == A
    assert not book.admits(A)
    assert len(book._entries) == PEERS_MAX


# --- revocations --------------------------------------------------------------------------------

CHIEF, DEPUTY = identity_from_seed(bytes([1]) * 32), identity_from_seed(bytes([2]) * 32)
CHIEFS = [
    Admin(who, ROOT.certify(who.peer, ("submit", "admin"), now_unix_s=NOW))
    for who in (CHIEF, DEPUTY)
]
GUESTS = [PeerId(f"visitor{number}") for number in "123"]


def revocations() -> st.SearchStrategy[SignedRevocation]:
    """By the root and two admins, of guests and of each other."""
    whom = st.sampled_from([*GUESTS, CHIEF.peer, DEPUTY.peer])
    return st.builds(
        lambda by, peer, epoch: revoke(by, peer, epoch=epoch, now_unix_s=NOW),
        st.sampled_from([ROOT, *CHIEFS]),
        whom,
        st.integers(0, 2),
    )


def book_of_all() -> CertificateBook:
    """One who knows a guest by the root, one by each admin, and the admins themselves."""
    book = CertificateBook(ME, ROOT.mesh, lambda: NOW)
    for peer, by in zip(GUESTS, [ROOT, *CHIEFS], strict=True):
        signed = certify(by, peer, ("submit",), now_unix_s=NOW)
        book.enter(peer, signed, book.check(peer, signed))
    for chief in CHIEFS:
        peer = chief.identity.peer
        book.enter(peer, chief.certificate, book.check(peer, chief.certificate))
    return book


def faults(book: CertificateBook) -> dict[str, str]:
    return {peer: book.fault(peer) for peer in (*GUESTS, CHIEF.peer, DEPUTY.peer)}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(revocations(), max_size=6).flatmap(lambda r: st.tuples(st.just(r), st.permutations(r)))
)
def test_who_is_out_does_not_hang_on_who_heard_what_first(
    both: tuple[list[SignedRevocation], list[SignedRevocation]],
) -> None:
    """Also where admins revoke each other."""
    books = []
    for said in both:
        book = book_of_all()
        fallen: list[PeerId] = []
        for one in said:
            before = faults(book)
            told = book.hear_roster(Roster(revocations=(one,)))
            # Nobody ever comes back, and who falls is told of at that moment.
            assert all(faults(book)[peer] for peer, fault in before.items() if fault)
            assert {p for p, f in faults(book).items() if f and not before[p]} <= set(told)
            fallen += told
        books.append(book)
    assert faults(books[0]) == faults(books[1])
    assert books[0].roster_version == books[1].roster_version


def test_what_is_known_costs_no_signature_and_is_no_news() -> None:
    book = book_of_all()
    roster = Roster(revocations=(revoke(ROOT, GUESTS[0], epoch=0, now_unix_s=NOW),))
    assert book.hear_roster(roster) == (GUESTS[0],)
    assert book.hear_roster(roster) == ()
    assert book.next_epoch(GUESTS[0]) == 1


def test_an_epoch_that_cannot_be_topped_is_not_topped() -> None:
    book = book_of_all()
    forever = revoke(ROOT, GUESTS[0], epoch=EPOCH_MAX, now_unix_s=NOW)
    book.hear_roster(Roster(revocations=(forever,)))
    assert book.next_epoch(GUESTS[0]) == EPOCH_MAX


def test_what_is_not_signed_by_who_may_is_not_heard() -> None:
    book = book_of_all()
    by_another = revoke(MeshRoot(bytes(32)), GUESTS[0], epoch=0, now_unix_s=NOW)
    assert book.hear_roster(Roster(revocations=(by_another,))) == ()
    assert book.fault(GUESTS[0]) == ""


def test_revocations_and_when_an_admin_was_seen_survive_a_restart(
    tmp_path: Path, clock: Clock
) -> None:
    path = tmp_path / "roster.json"
    book = CertificateBook(ME, ROOT.mesh, clock, path)
    # The admin who revokes is revoked itself, in the order that is harder to read back.
    by_chief = revoke(CHIEFS[0], GUESTS[0], epoch=2, now_unix_s=NOW)
    of_chief = revoke(ROOT, CHIEF.peer, epoch=0, now_unix_s=NOW)
    book.hear_roster(Roster(revocations=(of_chief, by_chief)))
    see_admin(book, clock)
    again = CertificateBook(ME, ROOT.mesh, clock, path)
    assert again.roster_version == book.roster_version == 4
    assert again.next_epoch(GUESTS[0]) == 3
    ended = ROOT.certify(A, ("submit",), now_unix_s=NOW - CERTIFICATE_LIFE_S - CLOCK_GRACE_S - 1)
    with pytest.raises(CertificateError, match="ended"):
        again.check(A, ended)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"admin_seen_unix_s": 1, "roster": "zz"}', "\xff"]
)
def test_a_damaged_roster_file_says_what_to_do(tmp_path: Path, clock: Clock, text: str) -> None:
    path = tmp_path / "roster.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match="delete it: the other members tell it again"):
        CertificateBook(ME, ROOT.mesh, clock, path)


# --- expiry -------------------------------------------------------------------------------------


@given(st.integers(-(10**7), 10**7), st.integers(0, 10**7))
def test_an_end_is_forgiven_while_no_admin_was_seen_since(seen_s: int, later_s: int) -> None:
    """Times relative to the end of the certificate: when an admin was here, and when we look."""
    clock = Clock()
    book = CertificateBook(ME, ROOT.mesh, clock)
    member = told_of()
    book.meet(member)
    end = clock.now + CERTIFICATE_LIFE_S
    clock.now = end + seen_s
    see_admin(book, clock)
    clock.now = max(clock.now, end + later_s)
    is_over = clock.now > end + CLOCK_GRACE_S
    assert book.admits(A) == (not is_over or seen_s <= 0)
    assert bool(book.roles(A)) == book.admits(A)


def test_an_admin_that_others_tell_of_or_whose_own_time_is_up_was_not_seen(
    book: CertificateBook, clock: Clock
) -> None:
    book.meet(told_of())
    old_admin = told_of(ADMIN, ("admin",))
    clock.now += CERTIFICATE_LIFE_S + CLOCK_GRACE_S + 1
    book.meet(old_admin)
    book.see(ADMIN)
    assert book.admits(A)
    see_admin(book, clock)
    assert not book.admits(A)
