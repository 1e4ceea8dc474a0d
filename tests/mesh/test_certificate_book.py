import pytest

from kowalski.mesh.certificate_book import PEERS_MAX, CertificateBook
from kowalski.mesh.membership_certificates import (
    CERTIFICATE_LIFE_S,
    CLOCK_GRACE_S,
    MeshRoot,
    verify,
)
from kowalski.protocol import codec
from kowalski.protocol.ids import Address, PeerId
from kowalski.protocol.messages.membership import RoundTrip
from kowalski.protocol.messages.trust import KnownMember, Role, SignedCertificate

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
