"""What is still referred to, and by whom: such contents are kept, the others may go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from kowalski.protocol.ids import ContentHash


class Pins:
    """Owners and the contents that they refer to. One content may have many owners."""

    def __init__(self) -> None:
        self._of: dict[str, frozenset[ContentHash]] = {}
        self._owners: Counter[ContentHash] = Counter()

    def __contains__(self, name: ContentHash) -> bool:
        return name in self._owners

    def __len__(self) -> int:
        return len(self._owners)

    def pin(self, owner: str, contents: Iterable[ContentHash]) -> None:
        """Keep these for `owner`, too."""
        before = self._of.get(owner, frozenset())
        more = frozenset(contents) - before
        if more:
            self._of[owner] = before | more
            self._owners.update(more)

    def unpin(self, owner: str) -> None:
        """The owner is gone: whatever nobody else refers to may go."""
        for name in self._of.pop(owner, ()):
            self._owners[name] -= 1
            if not self._owners[name]:
                del self._owners[name]
