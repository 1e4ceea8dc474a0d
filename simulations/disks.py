"""A node's disk as the simulator has it: watched, and at times full, slow, or gone in mid-write."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from inspect import signature
from typing import Protocol, cast

from kowalski.node.detached_storage import DetachedStorage
from kowalski.node.storage import LedgerStorage, StorageError

WRITING_THREADS = frozenset({"_write", "write", "write_bytes"})
"""Functions that nodes run in threads and that need room on the disk."""

ERRORS = 0.5
"""Share of the writes on a bad disk."""


class DiskWatcher(Protocol):
    def stored(self, number: int, method: str, arguments: tuple[object, ...]) -> None:
        """Node `number` has written something to its ledger: what, by the name of the method."""
        ...


def _nothing(*_: object) -> None:
    pass


@dataclass(slots=True)
class Disk:
    """What is wrong with one disk now. `halt` ends its node, `stall` lets it stand still."""

    number: int
    halt: Callable[[], None] = _nothing
    stall: Callable[[float], None] = _nothing
    is_full: int = 0
    errors: list[random.Random] = field(default_factory=list[random.Random])
    """Of each fault that lasts, dice that say which writes meet an error: one in two. Where that
    comes of the fsync SQLite takes the transaction back all the same; what is there if it dies then
    see `writes_left`."""
    slow_s: float = 0.0
    writes_left: float = float("inf")
    """Until the node dies in one: in the middle, if it is half a write."""
    is_gone: bool = False
    watchers: list[DiskWatcher] = field(default_factory=list)

    def begin(self) -> None:
        """A new process: the disk is as the last one left it."""
        self.is_gone = False
        self.writes_left = float("inf")

    def write(self, method: str, arguments: tuple[object, ...], do: Callable[[], object]) -> None:
        """Raises StorageError: as a bad disk would."""
        if self.is_gone:
            raise StorageError("the process is dead")
        if self.is_full:
            raise StorageError("simulated: database or disk is full")
        if self._meets_an_error():
            raise StorageError("simulated: disk I/O error")
        if self.slow_s:
            self.stall(self.slow_s)
        self.writes_left -= 1
        if self.writes_left < 0:
            self._die()
        do()
        for watcher in self.watchers:
            watcher.stored(self.number, method, arguments)
        if self.writes_left <= 0:
            self._die()

    def _meets_an_error(self) -> bool:
        return any(dice.random() < ERRORS for dice in self.errors)

    def _die(self) -> None:
        self.is_gone = True
        self.halt()
        raise StorageError("the process is dead")

    def obstruct(self, function: Callable[..., object]) -> None:
        """Meet the work of a thread; see `determinism.work_of_threads`."""
        name = getattr(getattr(function, "func", function), "__name__", "")
        if name not in WRITING_THREADS:
            return
        if self.is_full:
            raise OSError(errno.ENOSPC, "simulated: no space left on device")
        if self._meets_an_error():
            raise OSError(errno.EIO, "simulated: input/output error")
        if self.slow_s:
            self.stall(self.slow_s)


@cache
def _writes(storage: type, name: str) -> bool:
    method = getattr(storage, name, None)
    return callable(method) and signature(method).return_annotation in {None, "None"}


class _Watched:
    """A storage whose writes go through a disk. A method that returns nothing writes.

    `prefix`: of the names under which these writes are told.
    """

    def __init__(
        self, storage: LedgerStorage | DetachedStorage, disk: Disk, prefix: str = ""
    ) -> None:
        self._storage = storage
        self._disk = disk
        self._prefix = prefix

    def __getattr__(self, name: str) -> object:
        method = getattr(self._storage, name)
        if isinstance(method, DetachedStorage):
            watched = self.__dict__[name] = _Watched(method, self._disk, f"{name}.")
            return watched
        kind: type = type(self._storage)
        if not _writes(kind, name):
            return method

        def write(*arguments: object, **named: object) -> None:
            told = (*arguments, *named.values())
            self._disk.write(self._prefix + name, told, lambda: method(*arguments, **named))

        self.__dict__[name] = write
        return write


def on_disk(storage: LedgerStorage, disk: Disk) -> LedgerStorage:
    """The same storage on a disk of the simulator's."""
    return cast("LedgerStorage", _Watched(storage, disk))
