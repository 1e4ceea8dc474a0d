"""The room that folds other peers' texts to a token budget."""

from __future__ import annotations

from collections.abc import Callable

import trio

from kowalski.mesh.content_store import ContentStore, Requester
from kowalski.mesh.conversation import Conversation
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.limits import TEXT_BYTES_MAX
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.folding import FoldAsked, FoldDone
from kowalski.protocol.messages.telemetry import Hot, Occupancy
from kowalski.rlm.folding import fold

PROTOCOL = "/kowalski/fold/1"
QUEUE_MAX = 16
SOURCE_BYTES_MAX = 32 * 1024 * 1024
"""Folding reads at about 1 MB/s: a text beyond this is work for cells."""


class FoldingRoom:
    """Serves `/kowalski/fold/1`, a few texts at a time, each in a thread."""

    def __init__(
        self,
        store: ContentStore,
        requester: Requester,
        *,
        slots: int,
        hot: Callable[[], Hot],
    ) -> None:
        self._store = store
        self._requester = requester
        self._hot = hot
        self._slots = trio.CapacityLimiter(slots)
        self._admitted_max = slots + QUEUE_MAX
        self._admitted = 0

    @property
    def occupancy(self) -> Occupancy:
        at = self._slots.statistics()
        return Occupancy(
            running=at.borrowed_tokens,
            queued=self._admitted - at.borrowed_tokens,
            slots=int(at.total_tokens),
        )

    async def answer(self, _conversation: Conversation, request: Message) -> Message:
        if not isinstance(request, FoldAsked):
            raise RemoteProtocolError(f"{request.KIND} in a folding conversation")
        if self._admitted >= self._admitted_max:
            raise RequestRefusedError("busy", f"{QUEUE_MAX} texts wait", 1.0)
        self._admitted += 1
        try:
            with trio.move_on_after(request.remaining_s):
                return await self._fold(request, trio.current_time())
        finally:
            self._admitted -= 1
        raise RequestFailedError("timeout", f"no fold within {request.remaining_s:.1f} s")

    async def _fold(self, request: FoldAsked, started: float) -> FoldDone:
        await self._fetch(request)
        async with self._slots:
            # Read here, so that texts that wait lie on the disk.
            text = await self._source(request)
            folded = await trio.to_thread.run_sync(
                lambda: fold(text, budget_tokens=request.budget_tokens, question=request.question),
                abandon_on_cancel=True,
            )
        data = folded.text.encode()
        is_long = len(data) > TEXT_BYTES_MAX
        return FoldDone(
            text=None if is_long else folded.text,
            content=await self._store.put(data) if is_long else None,
            source_tokens=folded.source_tokens,
            tokens=folded.tokens,
            algorithm=folded.algorithm,
            held_s=trio.current_time() - started,
            hot=self._hot(),
        )

    async def _fetch(self, request: FoldAsked) -> None:
        """Have the text on this device."""
        if request.text is not None:
            return
        if request.content is None:
            raise RequestFailedError("bad_request", "neither text nor content")
        if request.content.bytes_total > SOURCE_BYTES_MAX:
            size = request.content.bytes_total
            raise RequestRefusedError("too_large", f"{size} bytes; at most {SOURCE_BYTES_MAX}")
        try:
            await self._store.fetch(request.content, self._requester)
        except PeerUnreachableError as lost:
            raise RequestFailedError("content", str(lost)) from lost

    async def _source(self, request: FoldAsked) -> str:
        if request.content is None or request.text is not None:
            return request.text or ""
        return (await self._store.read(request.content)).decode(errors="replace")
