"""Contents that are referred to here and are not here yet: pinned at once, fetched in time."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

import structlog
import trio

from kowalski.mesh.content_store import ContentStore, Requester
from kowalski.mesh.core.blame import Weather
from kowalski.protocol.ids import ContentHash
from kowalski.protocol.messages.content import ContentRef

log = structlog.get_logger(__name__)

AGAIN_S = 10.0
AGAIN_S_MAX = 600.0


class WantedContents:
    """For owners, such as a task: what they want is theirs until they are forgotten."""

    def __init__(self, store: ContentStore, requester: Requester) -> None:
        self._store = store
        self._requester = requester
        self._missing: dict[str, dict[ContentHash, ContentRef]] = {}
        self._due_at: dict[str, float] = {}
        self._pause_s: dict[str, float] = {}
        self._has_news = trio.Event()

    def want(self, owner: str, refs: Iterable[ContentRef], *, after_s: float) -> None:
        """Keep these for `owner`; those that are not here are fetched, not before `after_s`."""
        wanted = {ref.hash: ref for ref in refs}
        self._store.pin(owner, wanted)
        missing = {name: ref for name, ref in wanted.items() if self._store.path(name) is None}
        if missing:
            self._missing.setdefault(owner, {}).update(missing)
            due_at = trio.current_time() + after_s
            self._due_at[owner] = min(self._due_at.get(owner, due_at), due_at)
            self._has_news.set()

    def has(self, refs: Iterable[ContentRef]) -> bool:
        """Whether all of them are here."""
        return all(self._store.path(ref.hash) is not None for ref in refs)

    def lacks(self, owner: str) -> int:
        """How many of its contents are not here yet."""
        return len(self._missing.get(owner, ()))

    def forget(self, owner: str) -> None:
        for table in (self._missing, self._due_at, self._pause_s):
            table.pop(owner, None)
        self._store.unpin(owner)

    async def run(self) -> None:
        """Fetch, one content after the other, until cancelled."""
        while True:
            now = trio.current_time()
            for owner in [owner for owner, at in self._due_at.items() if at <= now]:
                await self._fetch_all(owner)
            self._has_news = trio.Event()
            with trio.move_on_at(min(self._due_at.values(), default=inf)):
                await self._has_news.wait()

    async def _fetch_all(self, owner: str) -> None:
        for ref in tuple(self._missing.get(owner, {}).values()):
            try:
                await self._store.fetch(ref, self._requester)
            except Weather as error:
                log.debug("content-not-had", owner=owner, content=ref.hash, why=str(error))
                continue
            if missing := self._missing.get(owner):
                missing.pop(ref.hash, None)
        if owner not in self._missing:
            return  # it was forgotten meanwhile
        if not self._missing[owner]:
            for table in (self._missing, self._due_at, self._pause_s):
                table.pop(owner, None)
            return
        pause_s = self._pause_s.get(owner, AGAIN_S)
        self._pause_s[owner] = min(AGAIN_S_MAX, 2 * pause_s)
        self._due_at[owner] = trio.current_time() + pause_s
