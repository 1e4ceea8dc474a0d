"""How two connected peers introduce themselves."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from kowalski.protocol.codec import decode, encode
from kowalski.protocol.messages.membership import Hello, Welcome
from kowalski.protocol.messages.trust import KnownMember
from tests.protocol.examples import BOOT, EXAMPLES, HOME, SIGNED


@pytest.mark.parametrize("kind", ["membership/hello", "membership/welcome"])
@pytest.mark.parametrize("boot", ["", "00C0FFEE00C0FFEE", "00c0ffee", "00c0ffee00c0ffee\n"])
def test_a_boot_is_sixteen_hexadecimal_digits(kind: str, boot: str) -> None:
    with pytest.raises(ValidationError, match="boot"):
        type(EXAMPLES[kind])(**(EXAMPLES[kind].model_dump() | {"boot": boot}))


def test_an_introduction_without_others_is_small() -> None:
    hello = Hello(certificate=SIGNED, boot=BOOT, name="küche", addresses=HOME)
    assert len(encode(hello)) < 700


def test_a_mesh_of_two_hundred_homes_fits_an_introduction() -> None:
    members = (KnownMember(certificate=SIGNED, addresses=HOME),) * 256
    welcome = Welcome(certificate=SIGNED, boot=BOOT, name="n", addresses=HOME, members=members)
    assert decode(encode(welcome)) == welcome
