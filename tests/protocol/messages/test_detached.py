"""What members of a detached task's group say: what is refused at the door."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from kowalski.protocol.messages.detached import Delegated


@pytest.mark.parametrize("size", [0, 63, 65])
def test_a_signature_has_64_bytes(size: int) -> None:
    with pytest.raises(ValidationError, match="signature"):
        Delegated(frame=b"", signature=bytes(size))
