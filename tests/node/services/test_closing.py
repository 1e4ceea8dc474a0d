"""How a session's end becomes the last entry."""

from __future__ import annotations

from pathlib import Path

import pytest

from kowalski.mesh.content_store import ContentStore
from kowalski.node.services.closing import ANSWER_BYTES_MAX, closing
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.journal import Closed
from kowalski.rlm.session import Finish

pytestmark = pytest.mark.trio

ME = PeerId("12D3KooWabcdefgh")
LONG = "a long answer, " * (ANSWER_BYTES_MAX // 10)


async def test_a_short_answer_is_all_there(tmp_path: Path) -> None:
    closed = await closing(Finish("answered", "42", "extracted: so"), ContentStore(tmp_path, ME))
    assert closed == Closed(outcome="answered", answer="42", detail="extracted: so")


async def test_a_long_answer_goes_by_hash_with_its_beginning(tmp_path: Path) -> None:
    store = ContentStore(tmp_path, ME)
    closed = await closing(Finish("answered", LONG, ""), store)
    assert closed.full is not None
    assert (await store.read(closed.full)).decode() == LONG
    assert LONG.startswith(closed.answer)
    assert len(closed.answer) < ANSWER_BYTES_MAX


async def test_where_there_is_no_room_for_it_a_long_answer_is_cut_and_says_so(
    tmp_path: Path,
) -> None:
    closed = await closing(Finish("answered", LONG, ""), ContentStore(tmp_path, ME, bytes_max=10))
    assert closed.full is None
    assert closed.answer == LONG[:ANSWER_BYTES_MAX]
    assert closed.detail.startswith("cut: too_large")
