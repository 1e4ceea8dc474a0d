"""What a holder of copies decides: what to take of what is offered, what to show, what to forget.

A copy is a prefix of some coordinator's journal, in one chain of digests. A coordinator of a higher
term may replace the end of it; one of a lower term is refused, since what that one wrote can never
be accepted any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from kowalski.node.core.fences import TaskKey
from kowalski.protocol.messages.repl import Inputs
from kowalski.protocol.messages.task import Digest, Entry
from kowalski.rlm.journal import GENESIS, check_chain, digest

KEPT_S = 86_400.0
"""How long a copy is kept after its coordinator was heard last."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Entries from `start` on, the first of which stands on `parent`."""

    key: TaskKey
    term: int
    start: int
    parent: Digest
    entries: tuple[Entry, ...] = ()
    inputs: Inputs = ()


@dataclass(frozen=True, slots=True)
class Copy:
    """What is held of one task. `heard_unix_s`: when its coordinator offered something last."""

    key: TaskKey
    term: int
    heard_unix_s: float
    digests: tuple[Digest, ...] = ()
    sizes: tuple[int, ...] = ()
    """Of each entry's body."""
    size_bytes: int = 0
    inputs: Inputs = ()

    @property
    def entries(self) -> int:
        return len(self.digests)

    def digest_before(self, index: int) -> Digest | None:
        """What entry `index` has to stand on; None if the entries before it are not all here."""
        if index > len(self.digests):
            return None
        return self.digests[index - 1] if index else GENESIS


@dataclass(frozen=True, slots=True)
class CopyDesk:
    copies: Mapping[TaskKey, Copy] = field(default_factory=dict)
    copies_max: int = 1000
    bytes_max: int = 512 << 20
    """Of all bodies together."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Cut the copy to its first `cut_to` entries, then append these; on disk before it is told.

    `forgotten` are copies of other tasks that make room.
    """

    copy: Copy
    cut_to: int
    entries: tuple[Entry, ...]
    digests: tuple[Digest, ...]
    forgotten: tuple[TaskKey, ...] = ()


@dataclass(frozen=True, slots=True)
class Behind:
    """What is offered does not stand on what is here: go on from here instead."""

    entries: int


@dataclass(frozen=True, slots=True)
class Full:
    size_bytes: int


def hear_offer(
    desk: CopyDesk, offer: Offer, now_unix_s: float
) -> tuple[CopyDesk, Keep | Behind | Full]:
    """What to take. That its term is not stale was checked.

    Raises:
        RemoteProtocolError: the entries are no chain.
    """
    copy = desk.copies.get(offer.key) or Copy(offer.key, offer.term, now_unix_s)
    if copy.digest_before(offer.start) != offer.parent:
        # Of another coordinator's chain nothing is known to be common.
        return desk, Behind(copy.entries if offer.start > copy.entries else 0)
    _, task = offer.key
    check_chain(task, offer.entries, parent=offer.parent, index=offer.start)
    marks = tuple(digest(task, entry) for entry in offer.entries)
    old = copy.digests[offer.start :]
    common = next(
        (at for at, mark in enumerate(marks) if at >= len(old) or old[at] != mark), len(marks)
    )
    is_replaced = common < min(len(marks), len(old))
    # What follows behind entries that are here already stays, unless another entry came instead.
    cut_to = offer.start + (common if is_replaced else len(old))
    fresh = offer.entries[common:]
    sizes = (*copy.sizes[:cut_to], *(len(entry.body) for entry in fresh))
    size_bytes = copy.size_bytes + sum(sizes[cut_to:]) - sum(copy.sizes[cut_to:])
    if size_bytes > desk.bytes_max:
        return desk, Full(size_bytes)
    copy = replace(
        copy,
        term=offer.term,
        heard_unix_s=now_unix_s,
        digests=(*copy.digests[:cut_to], *marks[common:]),
        sizes=sizes,
        size_bytes=size_bytes,
        inputs=offer.inputs or copy.inputs,
    )
    desk = replace(desk, copies={**desk.copies, copy.key: copy})
    forgotten = _in_excess(desk, copy.key)
    for key in forgotten:
        desk = forget(desk, key)
    return desk, Keep(copy, cut_to, fresh, marks[common:], forgotten)


def _in_excess(desk: CopyDesk, newest: TaskKey) -> tuple[TaskKey, ...]:
    """The longest unheard, if there are too many or they weigh too much."""
    count, size = len(desk.copies), sum(copy.size_bytes for copy in desk.copies.values())
    gone: list[TaskKey] = []
    if count <= desk.copies_max and size <= desk.bytes_max:
        return ()
    for copy in sorted(desk.copies.values(), key=lambda one: (one.heard_unix_s, one.key)):
        if count <= desk.copies_max and size <= desk.bytes_max:
            break
        if copy.key != newest:
            gone.append(copy.key)
            count, size = count - 1, size - copy.size_bytes
    return tuple(gone)


def has_more(desk: CopyDesk, key: TaskKey, start: int, parent: Digest) -> bool:
    """Whether a copy follows what somebody has."""
    copy = desk.copies.get(key)
    return copy is not None and copy.entries > start and copy.digest_before(start) == parent


def forget(desk: CopyDesk, key: TaskKey) -> CopyDesk:
    left = {name: copy for name, copy in desk.copies.items() if name != key}
    return replace(desk, copies=left)


def expired(desk: CopyDesk, now_unix_s: float) -> tuple[TaskKey, ...]:
    """Copies of which nobody has been heard for a day."""
    return tuple(
        copy.key for copy in desk.copies.values() if copy.heard_unix_s + KEPT_S <= now_unix_s
    )


def check(desk: CopyDesk) -> None:
    """What must hold after every step."""
    for key, copy in desk.copies.items():
        assert key == copy.key
        assert copy.size_bytes == sum(copy.sizes) <= desk.bytes_max
        assert len(copy.sizes) == len(copy.digests)
    assert len(desk.copies) <= desk.copies_max
