"""Tables of members that have nearly all their rows in common, kept once.

At 10,000 nodes every node has 10,000 rows: 10^8 in one process. Rows are immutable, and at the
start all tables are alike; each node keeps here only what it has learnt since.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping

from kowalski.mesh.core.membership import Member
from kowalski.protocol.ids import PeerId


class SharedRows(dict[PeerId, Member]):
    """All rows of `common` but that of `me`; what differs, and is new, is our own.

    A dict to whoever reads or writes rows and copies it with `copy`; as a dict of its own it has
    only the differences, so that it cannot be unpacked or given to `dict`. Rows are never deleted:
    nobody is buried within the hours of a simulation.
    """

    __slots__ = ("_common", "_me", "_new")

    def __init__(self, common: Mapping[PeerId, Member], me: PeerId) -> None:
        super().__init__()
        self._common = common
        self._me = me
        self._new = 0
        """Rows of peers that are not in `common`."""

    @property
    def differences(self) -> int:
        return super().__len__()

    def copy(self) -> SharedRows:
        copied = SharedRows(self._common, self._me)
        dict.update(copied, super().items())
        copied._new = self._new
        return copied

    def __missing__(self, peer: PeerId) -> Member:
        if peer == self._me:
            raise KeyError(peer)
        return self._common[peer]

    def __setitem__(self, peer: PeerId, member: Member) -> None:
        if not super().__contains__(peer) and peer not in self._common:
            self._new += 1
        super().__setitem__(peer, member)

    def get(self, key: PeerId, default: object = None, /) -> Member | None:  # type: ignore[override]
        """None where there is no such row; nobody wants another default."""
        assert default is None
        own = super().get(key)
        if own is not None or key == self._me:
            return own
        return self._common.get(key)

    def __contains__(self, peer: object) -> bool:
        return super().__contains__(peer) or (peer != self._me and peer in self._common)

    def __len__(self) -> int:
        return len(self._common) - (self._me in self._common) + self._new

    def __iter__(self) -> Iterator[PeerId]:
        yield from (peer for peer in self._common if peer != self._me)
        if self._new:
            yield from (peer for peer in super().__iter__() if peer not in self._common)

    def items(self) -> ItemsView[PeerId, Member]:  # type: ignore[override]
        return ItemsView(self)
