import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.identity import identity_from_seed
from kowalski.mesh.membership_certificates import (
    CERTIFICATE_LIFE_S,
    CLOCK_GRACE_S,
    Admin,
    CertificateError,
    Membership,
    MeshRoot,
    Rules,
    Seal,
    authority_of,
    certify,
    decode_certificate,
    found_mesh,
    invite_proof,
    is_invite_proof,
    is_mesh_proof,
    join_transcript,
    load_membership,
    mesh_proof,
    revoke,
    save_membership,
    verify,
    verify_revocation,
)
from kowalski.protocol import codec
from kowalski.protocol.errors import ConfigError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.trust import (
    ROLES,
    Certificate,
    Issuer,
    SignedCertificate,
    SignedRevocation,
)
from tests.protocol import strategies

A, B = PeerId("AAAAAAAA"), PeerId("BBBBBBBB")
NOW = 1_700_000_000
ROOT = MeshRoot(bytes(range(32)))
OTHER_ROOT = MeshRoot(bytes(range(1, 33)))
GOOD = ROOT.certify(A, ("repl", "submit"), now_unix_s=NOW)


def sign(frame: bytes, root: MeshRoot = ROOT) -> SignedCertificate:
    """A certificate that says `frame`, whatever that is."""
    return SignedCertificate(frame=frame, root_key=root.public_key, signature=root._key.sign(frame))


def reason(signed: SignedCertificate, peer: PeerId = A, now: float = NOW) -> str:
    with pytest.raises(CertificateError) as caught:
        verify(signed, mesh=ROOT.mesh, peer=peer, now_unix_s=now)
    return caught.value.reason


def test_a_certificate_makes_its_peer_a_member_with_its_roles() -> None:
    certificate = verify(GOOD, mesh=ROOT.mesh, peer=A, now_unix_s=NOW)
    assert (certificate.mesh, certificate.peer) == (ROOT.mesh, A)
    assert certificate.roles == ("submit", "repl")
    assert certificate.not_after_unix_s == NOW + CERTIFICATE_LIFE_S


def test_of_another_mesh_it_is_refused() -> None:
    assert reason(OTHER_ROOT.certify(A, ROLES, now_unix_s=NOW)) == "wrong_mesh"
    # The root key is ours, the signature is not.
    forged = OTHER_ROOT.certify(A, ROLES, now_unix_s=NOW)
    assert reason(forged.model_copy(update={"root_key": ROOT.public_key})) == "bad_signature"
    # Signed by our root, but for another mesh.
    certificate = codec.decode(GOOD.frame)
    elsewhere = certificate.model_copy(update={"mesh": OTHER_ROOT.mesh})
    assert reason(sign(codec.encode(elsewhere))) == "malformed"


def test_of_another_peer_it_is_refused() -> None:
    assert reason(GOOD, peer=B) == "wrong_peer"


def test_it_ends_with_a_grace_for_clocks_that_are_off() -> None:
    end = NOW + CERTIFICATE_LIFE_S + CLOCK_GRACE_S
    assert verify(GOOD, mesh=ROOT.mesh, peer=A, now_unix_s=end).peer == A
    assert reason(GOOD, now=end + 1) == "expired"


@given(st.data())
def test_any_changed_bit_is_noticed(data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(["frame", "root_key", "signature"]))
    changed = bytearray(getattr(GOOD, field))
    bit = data.draw(st.integers(0, len(changed) * 8 - 1))
    changed[bit // 8] ^= 1 << bit % 8
    assert reason(GOOD.model_copy(update={field: bytes(changed)})) in {
        "wrong_mesh",
        "bad_signature",
    }


@given(strategies.of(SignedCertificate))
def test_a_certificate_made_up_by_a_stranger_is_refused(signed: SignedCertificate) -> None:
    assert reason(signed) in {"wrong_mesh", "bad_signature"}


@given(
    st.binary(max_size=200)
    | strategies.messages().map(codec.encode).filter(lambda frame: len(frame) <= 2048)
)
def test_whatever_the_root_signed_is_a_certificate_of_this_peer_or_refused(frame: bytes) -> None:
    try:
        certificate = verify(sign(frame), mesh=ROOT.mesh, peer=A, now_unix_s=NOW)
    except CertificateError as no:
        assert no.reason in {"malformed", "wrong_peer", "expired"}  # noqa: PT017 most raise
    else:
        assert (certificate.mesh, certificate.peer) == (ROOT.mesh, A)


def test_the_private_key_is_in_no_repr() -> None:
    membership = found_mesh(A, now_unix_s=NOW)
    assert membership.root is not None
    for text in (repr(membership), str(membership.root)):
        assert repr(membership.root.private_key_bytes) not in text


# --- proofs of a join ---------------------------------------------------------------------------

TRANSCRIPT = join_transcript(A, B, b"n" * 16, b"m" * 16)


def test_only_the_owner_of_the_root_key_proves_the_mesh() -> None:
    assert is_mesh_proof(ROOT.mesh, B, TRANSCRIPT, mesh_proof(ROOT, TRANSCRIPT))
    forged = mesh_proof(OTHER_ROOT, TRANSCRIPT)
    assert not is_mesh_proof(ROOT.mesh, B, TRANSCRIPT, forged)
    assert not is_mesh_proof(ROOT.mesh, B, TRANSCRIPT, replace(forged, root_key=ROOT.public_key))
    # A signature that the root gave for something else, a certificate's, proves nothing.
    other = Seal(ROOT.public_key, GOOD.signature, None)
    assert not is_mesh_proof(ROOT.mesh, B, GOOD.frame, other)


@pytest.mark.parametrize(
    "other",
    [
        join_transcript(B, A, b"n" * 16, b"m" * 16),
        join_transcript(A, A, b"n" * 16, b"m" * 16),
        join_transcript(A, B, b"m" * 16, b"n" * 16),
        join_transcript(A, B, b"n" * 16 + b"m", b"m" * 15),
        join_transcript(A, B, b"n" * 16, b"M" * 16),
    ],
)
def test_a_proof_is_bound_to_both_peers_and_both_nonces(other: bytes) -> None:
    assert not is_mesh_proof(ROOT.mesh, B, other, mesh_proof(ROOT, TRANSCRIPT))
    assert not is_invite_proof(b"s" * 16, other, invite_proof(b"s" * 16, TRANSCRIPT))


def test_an_invite_is_proven_by_its_secret_alone() -> None:
    assert is_invite_proof(b"s" * 16, TRANSCRIPT, invite_proof(b"s" * 16, TRANSCRIPT))
    assert not is_invite_proof(b"S" * 16, TRANSCRIPT, invite_proof(b"s" * 16, TRANSCRIPT))


# --- the file -----------------------------------------------------------------------------------


def test_a_membership_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "mesh.json"
    assert load_membership(path) is None
    founder = found_mesh(A, now_unix_s=NOW)
    for membership in (founder, replace(founder, root=None)):
        save_membership(path, membership)
        assert load_membership(path) == membership
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{", ""),
        ('"mesh"', '"mash"'),
        (ROOT.mesh, OTHER_ROOT.mesh),
        (ROOT.public_key.hex(), OTHER_ROOT.public_key.hex()),
        (ROOT.private_key_bytes.hex(), OTHER_ROOT.private_key_bytes.hex()),
        (ROOT.private_key_bytes.hex(), "00"),
        (f'"{ROOT.private_key_bytes.hex()}"', "7"),
        (GOOD.signature.hex(), GOOD.signature.hex()[2:]),
        (GOOD.frame.hex(), "no hex"),
    ],
)
def test_a_damaged_file_is_the_owners_to_look_at(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "mesh.json"
    founder = replace(found_mesh(A, now_unix_s=NOW), mesh=ROOT.mesh, certificate=GOOD, root=ROOT)
    save_membership(path, founder)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match="damaged"):
        load_membership(path)


def test_a_file_that_cannot_be_read_is_the_owners_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        load_membership(tmp_path)


def test_a_certificate_fits_its_field_with_every_role() -> None:
    signed = ROOT.certify(PeerId("1" * 64), ROLES, now_unix_s=2**40, epoch=2**40)
    assert isinstance(codec.decode(signed.frame), Certificate)


# --- admins -------------------------------------------------------------------------------------

CHIEF, HELPER, GUEST = (identity_from_seed(bytes([number]) * 32) for number in (1, 2, 3))
ADMIN = Admin(CHIEF, ROOT.certify(CHIEF.peer, ("submit", "admin"), now_unix_s=NOW))
BY_ADMIN = certify(ADMIN, GUEST.peer, ("submit", "repl"), now_unix_s=NOW)


def test_an_admin_makes_members_and_only_the_root_makes_admins() -> None:
    certificate = verify(BY_ADMIN, mesh=ROOT.mesh, peer=GUEST.peer, now_unix_s=NOW)
    assert certificate.roles == ("submit", "repl")
    wished = certify(ADMIN, GUEST.peer, ("submit", "admin"), now_unix_s=NOW)
    assert decode_certificate(wished.frame).roles == ("submit",)
    assert ROOT.may_grant("admin")
    assert not ADMIN.may_grant("admin")


def test_whom_an_admin_calls_an_admin_is_none() -> None:
    frame = codec.encode(decode_certificate(GOOD.frame).model_copy(update={"roles": ROLES}))
    seal = ADMIN.seal(frame)
    overreach = SignedCertificate(
        frame=frame, root_key=seal.root_key, signature=seal.signature, issuer=seal.issuer
    )
    assert reason(overreach) == "issuer_overreach"
    # And nobody whom it made can make others.
    below = Admin(GUEST, BY_ADMIN)
    assert authority_of(Membership(ROOT.mesh, BY_ADMIN, None), GUEST) is None
    made = certify(below, A, ("submit",), now_unix_s=NOW)
    assert reason(made) in {"bad_signature", "issuer_not_allowed"}


def test_an_admins_word_is_no_good_without_its_own_key_role_and_mesh() -> None:
    stolen = Admin(HELPER, ADMIN.certificate)
    assert reason(certify(stolen, A, ("submit",), now_unix_s=NOW)) == "bad_signature"
    plain = Admin(HELPER, ROOT.certify(HELPER.peer, ("submit",), now_unix_s=NOW))
    assert reason(certify(plain, A, ("submit",), now_unix_s=NOW)) == "issuer_not_allowed"
    elsewhere = Admin(CHIEF, OTHER_ROOT.certify(CHIEF.peer, ROLES, now_unix_s=NOW))
    foreign = certify(elsewhere, A, ("submit",), now_unix_s=NOW)
    assert reason(foreign) == "wrong_mesh"
    ours = foreign.model_copy(update={"root_key": ROOT.public_key})
    assert reason(ours) == "bad_signature"


def test_only_the_root_and_its_admins_have_authority() -> None:
    founder = found_mesh(CHIEF.peer, now_unix_s=NOW)
    assert authority_of(founder, CHIEF) == founder.root
    admin = Membership(ROOT.mesh, ADMIN.certificate, None)
    assert authority_of(admin, CHIEF) == ADMIN
    plain = Membership(ROOT.mesh, ROOT.certify(HELPER.peer, ("submit",), now_unix_s=NOW), None)
    assert authority_of(plain, HELPER) is None


def test_an_admin_proves_the_mesh_as_itself_alone() -> None:
    proof = mesh_proof(ADMIN, TRANSCRIPT)
    assert is_mesh_proof(ROOT.mesh, CHIEF.peer, TRANSCRIPT, proof)
    assert not is_mesh_proof(ROOT.mesh, HELPER.peer, TRANSCRIPT, proof)


def test_a_membership_by_an_admin_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "mesh.json"
    membership = Membership(ROOT.mesh, BY_ADMIN, None)
    save_membership(path, membership)
    assert load_membership(path) == membership


def test_revocation_is_by_epoch_and_takes_along_whom_an_admin_had_let_in() -> None:
    def checked(signed: SignedCertificate, peer: PeerId, revoked: dict[PeerId, int]) -> str:
        rules = Rules(is_revoked=lambda who, epoch: epoch <= revoked.get(who, -1))
        try:
            verify(signed, mesh=ROOT.mesh, peer=peer, now_unix_s=NOW, rules=rules)
        except CertificateError as no:
            return no.reason
        return ""

    again = ROOT.certify(A, ("submit",), now_unix_s=NOW, epoch=3)
    assert [checked(again, A, {A: epoch}) for epoch in (2, 3, 4)] == ["", "revoked", "revoked"]
    assert checked(BY_ADMIN, GUEST.peer, {CHIEF.peer: 0}) == "issuer_revoked"
    assert checked(BY_ADMIN, GUEST.peer, {HELPER.peer: 9}) == ""


def test_a_revocation_counts_by_root_and_admin_and_by_nobody_else() -> None:
    for authority in (ROOT, ADMIN):
        said = revoke(authority, B, epoch=4, now_unix_s=NOW, why="lost")
        heard = verify_revocation(said, mesh=ROOT.mesh)
        assert (heard.peer, heard.epoch, heard.why) == (B, 4, "lost")
    for nobody in (OTHER_ROOT, Admin(GUEST, BY_ADMIN), Admin(HELPER, ADMIN.certificate)):
        with pytest.raises(CertificateError):
            verify_revocation(revoke(nobody, B, epoch=4, now_unix_s=NOW), mesh=ROOT.mesh)


# --- anything at all ----------------------------------------------------------------------------

FRAMES = st.one_of(
    st.binary(max_size=300),
    strategies.messages("trust/certificate").map(codec.encode),
    strategies.messages("trust/revocation").map(codec.encode),
    strategies.messages("base/refused").map(codec.encode),
    st.sampled_from([GOOD.frame, BY_ADMIN.frame, ADMIN.certificate.frame]),
)
SIGNATURES = st.one_of(
    st.binary(min_size=64, max_size=64),
    st.sampled_from([GOOD.signature, BY_ADMIN.signature, ADMIN.certificate.signature]),
)
ISSUERS = st.none() | st.builds(Issuer, frame=FRAMES, signature=SIGNATURES)
KEYS = st.sampled_from([ROOT.public_key, bytes(32)]) | st.binary(min_size=32, max_size=32)


@given(FRAMES, KEYS, SIGNATURES, ISSUERS)
def test_whatever_is_shown_is_a_certificate_or_refused_with_a_reason(
    frame: bytes, key: bytes, signature: bytes, issuer: Issuer | None
) -> None:
    shown = SignedCertificate(frame=frame, root_key=key, signature=signature, issuer=issuer)
    try:
        certificate = verify(shown, mesh=ROOT.mesh, peer=A, now_unix_s=NOW)
    except CertificateError as no:
        assert no.reason.isidentifier()  # noqa: PT017 one of two outcomes
    else:
        assert certificate == decode_certificate(GOOD.frame)
    said = SignedRevocation(frame=frame, root_key=key, signature=signature, issuer=issuer)
    with pytest.raises(CertificateError):
        verify_revocation(said, mesh=ROOT.mesh)


@given(FRAMES, FRAMES)
def test_what_root_and_admin_signed_by_mistake_is_refused_if_it_is_something_else(
    frame: bytes, issuing: bytes
) -> None:
    """The signatures are good; only what they are under is not."""
    issuer = Issuer(frame=issuing, signature=ROOT.seal(issuing).signature)
    shown = SignedCertificate(
        frame=frame, root_key=ROOT.public_key, signature=CHIEF.sign(frame), issuer=issuer
    )
    try:
        certificate = verify(shown, mesh=ROOT.mesh, peer=A, now_unix_s=NOW)
    except CertificateError as no:
        assert no.reason.isidentifier()  # noqa: PT017 one of two outcomes
    else:
        assert certificate.peer == A
        assert "admin" in decode_certificate(issuing).roles
        assert "admin" not in certificate.roles
