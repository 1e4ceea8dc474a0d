"""A promise that is broken says which one it was."""

from __future__ import annotations

import pytest

from kowalski.node.core.invariants import InvariantError, must
from kowalski.protocol.errors import LocalProtocolError


def test_what_holds_passes_and_what_does_not_names_its_promise() -> None:
    must(True, "visible_once", "never told")
    with pytest.raises(InvariantError, match="prefix_chain: entry 3 stands on nothing") as broken:
        must(False, "prefix_chain", "entry 3 stands on nothing")
    assert broken.value.name == "prefix_chain"
    assert isinstance(broken.value, LocalProtocolError), "a defect of ours, to be loud about"
