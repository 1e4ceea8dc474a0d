"""Frames that a node would not make."""

from __future__ import annotations

import pytest

from kowalski.protocol import codec
from kowalski.protocol.errors import RemoteProtocolError
from kowalski.protocol.messages.membership import RoundTrip
from simulations.frames import altered, kind_of, made


def test_a_frame_of_ours_is_made_as_the_codec_makes_it() -> None:
    assert made(1, "membership/round-trip", {}) == codec.encode(RoundTrip())
    assert kind_of(codec.encode(RoundTrip())) == "membership/round-trip"


@pytest.mark.parametrize(("version", "kind"), [(99, "membership/round-trip"), (1, "future/thing")])
def test_other_versions_and_kinds_are_well_formed_and_refused(version: int, kind: str) -> None:
    with pytest.raises(RemoteProtocolError, match=r"version|kind"):
        codec.decode(made(version, kind, {}))


def test_a_body_is_altered_and_nothing_else() -> None:
    def more(kind: str, body: dict[str, object]) -> dict[str, object]:
        return {**body, "kind_was": kind}

    changed = altered(codec.encode(RoundTrip()), more)
    assert changed == made(1, "membership/round-trip", {"kind_was": "membership/round-trip"})
    assert codec.decode(changed) == RoundTrip()
