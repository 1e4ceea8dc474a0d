"""What is referred to stays as long as anybody refers to it."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kowalski.mesh.core.pins import Pins
from kowalski.protocol.ids import ContentHash

owners = st.sampled_from(["task a", "task b", "copy a"])
contents = st.sets(st.sampled_from([ContentHash(letter * 64) for letter in "abc"]))


def test_what_two_refer_to_stays_until_both_are_gone() -> None:
    pins, content = Pins(), ContentHash("a" * 64)
    pins.pin("one", [content])
    pins.pin("other", [content])
    pins.unpin("one")
    assert content in pins
    pins.unpin("other")
    assert content not in pins
    assert len(pins) == 0


class Pinned(RuleBasedStateMachine):
    """Against a plain table of who refers to what."""

    def __init__(self) -> None:
        super().__init__()
        self.pins = Pins()
        self.table: dict[str, set[ContentHash]] = {}

    @rule(owner=owners, names=contents)
    def pin(self, owner: str, names: set[ContentHash]) -> None:
        self.pins.pin(owner, names)
        self.table[owner] = self.table.get(owner, set()) | names

    @rule(owner=owners)
    def unpin(self, owner: str) -> None:
        self.pins.unpin(owner)
        self.table.pop(owner, None)

    @invariant()
    def they_agree(self) -> None:
        wanted = set().union(*self.table.values())
        assert {
            name for name in (ContentHash(x * 64) for x in "abc") if name in self.pins
        } == wanted
        assert len(self.pins) == len(wanted)


TestPinned = Pinned.TestCase
