"""Big things by hash: a folder of blobs, and fetching those that other peers hold.

A blob is named by the SHA-256 of its bytes and never changes, so a copy from anywhere is as good as
any other once its hash is checked. Fetching pulls range after range into a part file; an
interrupted fetch goes on where it stopped. What is referred to is kept; of the rest, what was used
longest ago makes room, and what nobody used for a day is swept away.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import structlog
import trio

from kowalski.mesh.conversation import Conversation
from kowalski.mesh.core.pins import Pins
from kowalski.protocol import ids
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import ContentHash, PeerId
from kowalski.protocol.limits import CONTENT_BYTES_MAX, CONTENT_CHUNK_BYTES
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.content import ContentAsked, ContentChunk, ContentRef

log = structlog.get_logger(__name__)

PROTOCOL = "/kowalski/content/1"
PART = ".part"
DRAFT = ".draft"
CHUNK_TIMEOUT_S = 10.0
READ_BYTES = 1024 * 1024
SWEEP_S = 600.0
UNUSED_S = 86_400.0

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})
"""What a disk says that is full, or may not be written."""


class Requester(Protocol):
    """The part of `Mesh` that fetching needs."""

    async def request_chunk(
        self, peer: PeerId, asked: ContentAsked, *, timeout_s: float
    ) -> ContentChunk: ...


class ContentStore:
    """Blobs in one folder, at most `bytes_max` bytes of them; the longest unused go first.

    What is being fetched, or pinned, is never removed. A blob may be while somebody reads its file:
    an open file stays readable.
    """

    def __init__(self, folder: Path, me: PeerId, *, bytes_max: int = 4 << 30) -> None:
        self._folder = folder
        self._me = me
        self._bytes_max = bytes_max
        self._pins = Pins()
        self._fetching: dict[ContentHash, trio.Lock] = {}
        self._drafts: set[str] = set()
        # Making room and what it is made for are one step, done in a thread.
        self._making_room = trio.CapacityLimiter(1)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def pin(self, owner: str, contents: Iterable[ContentHash]) -> None:
        """Keep these for `owner` until it is unpinned, those that are yet to come included."""
        self._pins.pin(owner, contents)

    def unpin(self, owner: str) -> None:
        self._pins.unpin(owner)

    async def put(self, data: bytes) -> ContentRef:
        """Keep `data`.

        Raises:
            RequestRefusedError: `too_large`; `no_capacity`, the store or its disk is full.
        """
        self._check_size(len(data), "content")
        with _refusing():
            name = await trio.to_thread.run_sync(self._write, data, limiter=self._making_room)
        return ContentRef(hash=name, bytes_total=len(data), holders=(self._me,))

    async def put_file(self, path: Path) -> ContentRef:
        """Keep a copy of a file, which is never in memory as a whole.

        Raises:
            RequestRefusedError: `too_large`; `no_capacity`, the store or its disk is full.
            OSError: it cannot be read.
        """
        self._check_size((await trio.Path(path).stat()).st_size, str(path))
        with path.open("rb"):
            pass  # that it cannot be read is not the store's fault
        draft = self._new_draft()
        try:
            with _refusing():
                name, size = await trio.to_thread.run_sync(self._copy, path, draft)
                self._check_size(size, str(path))
                await trio.to_thread.run_sync(self._keep, draft, name, limiter=self._making_room)
        finally:
            self._drafts.discard(draft.name)
            draft.unlink(missing_ok=True)
        return ContentRef(hash=name, bytes_total=size, holders=(self._me,))

    def path(self, name: ContentHash) -> Path | None:
        """Where the blob lies, if we hold it. Read only; gone when the store makes room."""
        path = self._folder / name
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    async def read(self, ref: ContentRef) -> bytes:
        """The bytes of a blob that we hold.

        Raises:
            RequestRefusedError: `unknown`.
        """
        try:
            return await trio.Path(self._held(ref.hash)).read_bytes()
        except FileNotFoundError:
            raise _unknown(ref.hash) from None

    async def fetch(self, ref: ContentRef, requester: Requester) -> Path:
        """The blob's file, fetched from one of its holders if we do not hold it yet.

        Raises:
            PeerUnreachableError: no holder could deliver it.
            RequestRefusedError: `too_large` for this store; `no_capacity`, it or its disk is full.
        """
        self._check_size(ref.bytes_total, f"content {ref.hash[:12]}")
        lock = self._fetching.setdefault(ref.hash, trio.Lock())
        try:
            async with lock:
                if path := self.path(ref.hash):
                    return path
                with _refusing():
                    return await self._fetch_from_any(ref, requester)
        finally:
            if not lock.locked() and self._fetching.get(ref.hash) is lock:
                del self._fetching[ref.hash]

    async def _fetch_from_any(self, ref: ContentRef, requester: Requester) -> Path:
        complaints: list[str] = []
        part = self._folder / f"{ref.hash}{PART}"
        missing = ref.bytes_total - (part.stat().st_size if part.exists() else 0)
        await trio.to_thread.run_sync(self._make_room, missing, limiter=self._making_room)
        for holder in ref.holders:
            if holder == self._me:
                continue
            try:
                if part.exists() and (path := await self._resume(holder, ref, part, requester)):
                    return path
                return await self._fetch_from(holder, ref, part, requester)
            except (
                PeerUnreachableError,
                RequestRefusedError,
                RequestFailedError,
                RemoteProtocolError,
            ) as error:
                complaints.append(f"{holder[-6:]}: {error}")
        why = "; ".join(complaints) or "no peer is named that holds it"
        raise PeerUnreachableError(f"content {ref.hash[:12]}: {why}")

    async def _resume(
        self, holder: PeerId, ref: ContentRef, part: Path, requester: Requester
    ) -> Path | None:
        """Go on where another fetch stopped; None when what was there turns out to be wrong."""
        try:
            return await self._fetch_from(holder, ref, part, requester)
        except _WrongBytesError as wrong:
            log.info("part-thrown-away", hash=ref.hash, why=str(wrong))
            return None

    async def _fetch_from(
        self, holder: PeerId, ref: ContentRef, part: Path, requester: Requester
    ) -> Path:
        async with await trio.open_file(part, "ab") as file:
            offset = await file.tell()
            while offset < ref.bytes_total:
                wanted = min(CONTENT_CHUNK_BYTES, ref.bytes_total - offset)
                asked = ContentAsked(hash=ref.hash, offset=offset, bytes_max=wanted)
                chunk = await requester.request_chunk(holder, asked, timeout_s=CHUNK_TIMEOUT_S)
                if not 0 < len(chunk.data) <= wanted:
                    raise RemoteProtocolError(f"{len(chunk.data)} bytes for {wanted} asked")
                await file.write(chunk.data)
                offset += len(chunk.data)
        return await trio.to_thread.run_sync(self._adopt, part, ref, limiter=self._making_room)

    async def answer(self, _conversation: Conversation, request: Message) -> Message:
        """Serve the content conversation."""
        if not isinstance(request, ContentAsked):
            raise RemoteProtocolError(f"{request.KIND} in a content conversation")
        try:
            async with await trio.open_file(self._held(request.hash), "rb") as file:
                size = await file.seek(0, os.SEEK_END)
                await file.seek(request.offset)
                data = await file.read(request.bytes_max)
        except FileNotFoundError:
            raise _unknown(request.hash) from None
        return ContentChunk(data=data, bytes_total=size)

    def _held(self, name: ContentHash) -> Path:
        path = self.path(name)
        if path is None:
            raise _unknown(name)
        return path

    def _check_size(self, size: int, what: str) -> None:
        bytes_max = min(CONTENT_BYTES_MAX, self._bytes_max)
        if size > bytes_max:
            raise RequestRefusedError(
                "too_large", f"{what} has {size} bytes, more than {bytes_max}"
            )

    def _new_draft(self) -> Path:
        draft = self._folder / f"{secrets.token_hex(16)}{DRAFT}"
        self._drafts.add(draft.name)
        return draft

    def _write(self, data: bytes) -> ContentHash:
        name = ids.content_hash(data)
        if self.path(name) is None:
            self._make_room(len(data))
            draft = self._new_draft()
            try:
                draft.write_bytes(data)
                draft.replace(self._folder / name)
            finally:
                self._drafts.discard(draft.name)
                draft.unlink(missing_ok=True)
        return name

    def _copy(self, source: Path, draft: Path) -> tuple[ContentHash, int]:
        """A copy that is not kept yet, with its name and size."""
        digest, size = sha256(), 0
        with source.open("rb") as reading, draft.open("wb") as writing:
            # It may be growing while it is read.
            while size <= CONTENT_BYTES_MAX and (block := reading.read(READ_BYTES)):
                digest.update(block)
                writing.write(block)
                size += len(block)
        return ContentHash(digest.hexdigest()), size

    def _keep(self, draft: Path, name: ContentHash) -> None:
        if self.path(name) is None:
            self._make_room(0)  # the draft is counted already
            draft.replace(self._folder / name)

    def _adopt(self, part: Path, ref: ContentRef) -> Path:
        digest = sha256()
        with part.open("rb") as file:
            while block := file.read(READ_BYTES):
                digest.update(block)
        if digest.hexdigest() != ref.hash:
            part.unlink()
            raise _WrongBytesError(f"content {ref.hash[:12]} arrived with another hash")
        self._make_room(0)  # the part is counted already
        return part.replace(self._folder / ref.hash)

    def _make_room(self, wanted: int) -> None:
        """Remove what was used longest ago and is not wanted, parts and drafts included.

        Raises:
            RequestRefusedError: `no_capacity`, what is left is referred to.
        """
        files = [(path, path.stat()) for path in self._folder.iterdir()]
        used = sum(stat.st_size for _, stat in files)
        for path, stat in sorted(files, key=lambda file: file[1].st_mtime_ns):
            if used + wanted <= self._bytes_max:
                return
            if self._is_dispensable(path):
                path.unlink(missing_ok=True)
                used -= stat.st_size
        if used + wanted > self._bytes_max:
            raise RequestRefusedError(
                "no_capacity",
                f"the content store is full: of {self._bytes_max} bytes {used} are referred to",
            )

    def _is_dispensable(self, path: Path) -> bool:
        name = ContentHash(path.name.removesuffix(PART))
        return name not in self._fetching and name not in self._pins and name not in self._drafts

    async def sweep(self) -> None:
        """Until cancelled, remove what nobody refers to and nobody has used for a day."""
        while True:
            await trio.to_thread.run_sync(self._sweep, limiter=self._making_room)
            await trio.sleep(SWEEP_S)

    def _sweep(self) -> None:
        now = time.time()
        for path in self._folder.iterdir():
            if path.stat().st_mtime + UNUSED_S < now and self._is_dispensable(path):
                path.unlink(missing_ok=True)


@contextmanager
def _refusing() -> Iterator[None]:
    """What a full or read-only disk says, as a refusal."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            words = f"the disk takes no more: {error.strerror}"
            raise RequestRefusedError("no_capacity", words) from error
        raise


class _WrongBytesError(RemoteProtocolError):
    """A holder delivered something else than what was asked for."""


def _unknown(name: ContentHash) -> RequestRefusedError:
    return RequestRefusedError("unknown", f"content {name[:12]} is not held here")
