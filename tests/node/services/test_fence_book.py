"""One book of fences for all rooms of a node."""

from __future__ import annotations

import pytest

from kowalski.node.core.fences import TaskKey
from kowalski.node.services.fence_book import FenceBook
from kowalski.protocol.errors import RequestRefusedError
from kowalski.protocol.ids import PeerId, TaskId

KEY: TaskKey = (PeerId("12D3KooWaaaaaaaa"), TaskId("a"))
OTHER: TaskKey = (PeerId("12D3KooWbbbbbbbb"), TaskId("a"))


def test_below_the_highest_term_everything_is_stale_and_says_what_was_heard() -> None:
    fences = FenceBook()
    fences.hear(KEY, 3)
    fences.check(KEY, 3)
    for refused in (fences.check, fences.hear):
        with pytest.raises(RequestRefusedError, match="stale: term 2, 3 was heard"):
            refused(KEY, 2)
    fences.hear(OTHER, 1)


def test_those_who_listen_hear_of_a_term_once() -> None:
    fences, heard = FenceBook(), list[tuple[TaskKey, int]]()
    fences.listen(lambda key, term: heard.append((key, term)))
    for term in (1, 1, 4, 4):
        fences.hear(KEY, term)
    fences.check(KEY, 9)
    assert heard == [(KEY, 1), (KEY, 4)]
