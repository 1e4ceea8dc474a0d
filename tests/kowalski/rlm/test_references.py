"""What a journal's entries refer to, found wherever a message may carry it."""

from __future__ import annotations

import pytest

from kowalski.protocol.codec import encode
from kowalski.protocol.messages.base import Record
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.journal import ChildHappened
from kowalski.protocol.messages.registry import MESSAGES
from kowalski.rlm.references import contents_of, refs_of
from tests.protocol.examples import EXAMPLES, HASH, REF, SPEC

WITH_CONTENT = {
    "journal/cell-finished",
    "journal/closed",
    "journal/folded",
}


@pytest.mark.parametrize("kind", sorted(kind for kind in MESSAGES if kind.startswith("journal/")))
def test_the_entries_that_refer_to_contents_are_known(kind: str) -> None:
    """Every example has all its fields set, so one that is forgotten here shows."""
    found = contents_of(EXAMPLES[kind])
    assert found == ({HASH} if kind in WITH_CONTENT else frozenset())


def test_inputs_of_a_task_are_found_with_who_holds_them() -> None:
    assert list(refs_of(SPEC)) == [REF]


def test_a_reference_is_one_itself_and_two_to_the_same_are_one_content() -> None:
    assert list(refs_of(REF)) == [REF]

    class Two(Record):
        one: ContentRef
        other: ContentRef

    both = Two(one=REF, other=REF.model_copy(update={"holders": ()}))
    assert len(list(refs_of(both))) == 2
    assert contents_of(both) == {HASH}


def test_what_a_child_session_refers_to_is_kept_with_its_parents() -> None:
    inner = EXAMPLES["journal/folded"]
    event = ChildHappened(cell=0, ordinal=0, event=encode(inner))
    outer = ChildHappened(cell=1, ordinal=2, event=encode(event))
    assert contents_of(outer) == contents_of(inner) == {HASH}


def test_what_a_newer_peer_says_of_a_child_refers_to_nothing_that_we_know() -> None:
    assert contents_of(ChildHappened(cell=0, ordinal=0, event=b"\x00")) == frozenset()
