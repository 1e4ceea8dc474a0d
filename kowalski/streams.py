"""News for several readers, each at its own pace: who is slow loses the oldest, and is told."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")

READER_ITEMS_MAX = 256


class Subscription(Generic[T]):
    """An asynchronous iterator over what is said from now on; ends when the speaker closes."""

    def __init__(self, mark: Callable[[T, int], T], wants: Callable[[T], bool]) -> None:
        self._mark = mark
        self._wants = wants
        self._waiting: deque[T] = deque()
        self._missed = 0
        self._news = anyio.Event()
        self._is_closed = False

    def put(self, item: T) -> None:
        if not self._wants(item):
            return
        if len(self._waiting) >= READER_ITEMS_MAX:
            self._waiting.popleft()
            self._missed += 1
        self._waiting.append(item)
        self._news.set()

    def close(self) -> None:
        self._is_closed = True
        self._news.set()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        while not self._waiting:
            if self._is_closed:
                raise StopAsyncIteration
            self._news = anyio.Event()
            await self._news.wait()
        item, missed = self._waiting.popleft(), self._missed
        self._missed = 0
        return self._mark(item, missed) if missed else item


class Broadcast(Generic[T]):
    """`mark` writes into an item how many before it were dropped."""

    def __init__(self, mark: Callable[[T, int], T]) -> None:
        self._mark = mark
        self._readers: list[Subscription[T]] = []
        self._is_closed = False

    def subscribe(self, wants: Callable[[T], bool] = lambda _item: True) -> Subscription[T]:
        """Hears what is said from now on and wanted, until it or the broadcast is closed."""
        reader = Subscription(self._mark, wants)
        self._readers.append(reader)
        if self._is_closed:
            reader.close()
        return reader

    def leave(self, reader: Subscription[T]) -> None:
        reader.close()
        if reader in self._readers:
            self._readers.remove(reader)

    def say(self, item: T) -> None:
        for reader in self._readers:
            reader.put(item)

    def close(self) -> None:
        self._is_closed = True
        for reader in self._readers:
            reader.close()
