"""Certificates and joining: fixed sizes, nothing to shift."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from kowalski.protocol.codec import decode, encode
from kowalski.protocol.messages.trust import (
    ROLES,
    Certificate,
    InviteProven,
    JoinAsked,
    MeshProven,
    Revocation,
    SignedCertificate,
    SignedRevocation,
)
from tests.protocol.examples import CERTIFICATE, MESH, REVOCATION, ROSTER, SIGNED


def test_the_largest_certificate_fits_where_it_is_carried() -> None:
    largest = Certificate(
        mesh=MESH, peer="z" * 64, roles=ROLES, not_after_unix_s=2**53, epoch=2**53
    )
    assert SignedCertificate(frame=encode(largest), root_key=bytes(32), signature=bytes(64))


def test_what_was_signed_is_carried_byte_for_byte() -> None:
    assert decode(SIGNED.frame) == CERTIFICATE
    assert encode(CERTIFICATE) == SIGNED.frame


@pytest.mark.parametrize("length", [0, 31, 33])
def test_keys_and_proofs_have_thirty_two_bytes(length: int) -> None:
    with pytest.raises(ValidationError, match="root_key"):
        MeshProven(root_key=bytes(length), signature=bytes(64), nonce=bytes(16))
    with pytest.raises(ValidationError, match="proof"):
        InviteProven(proof=bytes(length), name="n")


@pytest.mark.parametrize("length", [0, 15, 33])
def test_a_nonce_has_sixteen_bytes_or_somewhat_more(length: int) -> None:
    with pytest.raises(ValidationError, match="nonce"):
        JoinAsked(invite=bytes(16), nonce=bytes(length))


def test_a_revocation_with_a_long_reason_does_not_fit_where_it_is_carried() -> None:
    """256 of them have to fit one message; whoever revokes says why in two hundred characters."""
    usual = Revocation(mesh=MESH, peer="z" * 64, epoch=2**53, issued_unix_s=2**53, why="ä" * 200)
    assert SignedRevocation(frame=encode(usual), root_key=bytes(32), signature=bytes(64))
    long = usual.model_copy(update={"why": "ä" * 1000})
    with pytest.raises(ValidationError, match="frame"):
        SignedRevocation(frame=encode(long), root_key=bytes(32), signature=bytes(64))


def test_a_roster_carries_revocations_byte_for_byte() -> None:
    (signed,) = ROSTER.revocations
    assert decode(signed.frame) == REVOCATION
    assert decode(encode(ROSTER)) == ROSTER
