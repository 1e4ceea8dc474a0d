"""The last entry of a journal, as a session's end becomes one."""

from __future__ import annotations

from kowalski.mesh.content_store import ContentStore
from kowalski.node.services.texts import fitting
from kowalski.protocol.errors import RequestRefusedError
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.base import line, sayable
from kowalski.protocol.messages.content import ContentRef
from kowalski.rlm.session import Finish

ANSWER_BYTES_MAX = 200_000
"""Of the last entry; a longer answer goes by hash."""


async def closing(finish: Finish, store: ContentStore) -> journal.Closed:
    """A long answer goes by hash, and is cut where even that has no room."""
    data = sayable(finish.answer).encode()
    detail = finish.detail
    full: ContentRef | None = None
    if len(data) > ANSWER_BYTES_MAX:
        try:
            full = await store.put(data)
        except RequestRefusedError as no:
            detail = f"cut: {no}"
    return journal.Closed(
        outcome=finish.outcome,
        answer=fitting(finish.answer, ANSWER_BYTES_MAX // 4 if full else ANSWER_BYTES_MAX),
        full=full,
        score=finish.score,
        detail=line(detail),
    )
