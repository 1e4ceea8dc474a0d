"""When a certificate is to be renewed: after a third of its life, a little apart from others."""

from __future__ import annotations

from hashlib import blake2b

from kowalski.protocol.messages.trust import Certificate

CERTIFICATE_LIFE_S = 180 * 24 * 3600
"""Renewed long before it ends; without any admin a mesh lives on for this long, and longer."""

SPREAD_S = 24 * 3600
"""Members that joined in one hour do not all come back in one hour."""


def due_at_unix_s(certificate: Certificate) -> int:
    """A third after the beginning, spread over a day by the peer's name."""
    begun = certificate.not_after_unix_s - CERTIFICATE_LIFE_S
    draw = blake2b(certificate.peer.encode(), digest_size=4).digest()
    return begun + CERTIFICATE_LIFE_S // 3 + int.from_bytes(draw, "big") % SPREAD_S
