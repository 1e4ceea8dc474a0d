"""How two connected peers introduce themselves."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from kowalski.protocol.codec import decode, encode
from kowalski.protocol.messages.membership import Hello, Ready, Welcome
from kowalski.protocol.messages.trust import KnownMember, Roster, SignedRevocation
from tests.protocol.examples import (
    BOOT,
    EXAMPLES,
    HOME,
    ISSUER,
    PROFILE,
    SIGNED,
    SIGNED_BY_ADMIN,
)


@pytest.mark.parametrize("kind", ["membership/hello", "membership/welcome"])
@pytest.mark.parametrize("boot", ["", "00C0FFEE00C0FFEE", "00c0ffee", "00c0ffee00c0ffee\n"])
def test_a_boot_is_sixteen_hexadecimal_digits(kind: str, boot: str) -> None:
    with pytest.raises(ValidationError, match="boot"):
        type(EXAMPLES[kind])(**(EXAMPLES[kind].model_dump() | {"boot": boot}))


def test_an_introduction_without_others_is_small() -> None:
    hello = Hello(certificate=SIGNED, boot=BOOT, name="küche", addresses=HOME)
    assert len(encode(hello)) < 700


def test_a_mesh_of_two_hundred_homes_fits_an_introduction() -> None:
    members = (KnownMember(certificate=SIGNED_BY_ADMIN, addresses=HOME),) * 256
    welcome = Welcome(certificate=SIGNED, boot=BOOT, name="n", addresses=HOME, members=members)
    assert decode(encode(welcome)) == welcome


def test_a_hello_tells_a_stranger_of_nobody_else() -> None:
    assert set(Hello.model_fields) == {"certificate", "boot", "name", "addresses"}


def test_what_follows_the_proof_holds_a_full_roster_and_half_as_many_members() -> None:
    members = (KnownMember(certificate=SIGNED_BY_ADMIN, addresses=HOME * 8),) * 128
    heaviest = SignedRevocation(
        frame=bytes(1024), root_key=bytes(32), signature=bytes(64), issuer=ISSUER
    )
    ready = Ready(members=members, profile=PROFILE, roster=Roster(revocations=(heaviest,) * 256))
    assert decode(encode(ready)) == ready
