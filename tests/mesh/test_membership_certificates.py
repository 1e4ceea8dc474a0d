import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.membership_certificates import (
    CERTIFICATE_LIFE_S,
    CLOCK_GRACE_S,
    CertificateError,
    MeshRoot,
    found_mesh,
    invite_proof,
    is_invite_proof,
    is_mesh_proof,
    join_transcript,
    load_membership,
    save_membership,
    verify,
)
from kowalski.protocol import codec
from kowalski.protocol.errors import ConfigError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.trust import ROLES, Certificate, SignedCertificate
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
    good = ROOT.prove(TRANSCRIPT)
    assert is_mesh_proof(ROOT.mesh, ROOT.public_key, TRANSCRIPT, good)
    forged = OTHER_ROOT.prove(TRANSCRIPT)
    assert not is_mesh_proof(ROOT.mesh, ROOT.public_key, TRANSCRIPT, forged)
    assert not is_mesh_proof(ROOT.mesh, OTHER_ROOT.public_key, TRANSCRIPT, forged)
    # A signature that the root gave for something else, a certificate's, proves nothing.
    assert not is_mesh_proof(ROOT.mesh, ROOT.public_key, GOOD.frame, GOOD.signature)


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
    assert not is_mesh_proof(ROOT.mesh, ROOT.public_key, other, ROOT.prove(TRANSCRIPT))
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
