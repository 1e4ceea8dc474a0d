"""Big things by hash: a folder of blobs, and fetching those that other peers hold.

A blob is named by the SHA-256 of its bytes and never changes, so a copy from anywhere is as good as
any other once its hash is checked. Fetching pulls range after range into a part file; an
interrupted fetch goes on where it stopped.
"""

from __future__ import annotations

import os
import secrets
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import trio

from kowalski.mesh.conversation import Conversation
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

PROTOCOL = "/kowalski/content/1"
CHUNK_TIMEOUT_S = 10.0
READ_BYTES = 1024 * 1024


class Requester(Protocol):
    """The part of `Mesh` that fetching needs."""

    async def request_chunk(
        self, peer: PeerId, asked: ContentAsked, *, timeout_s: float
    ) -> ContentChunk: ...


class ContentStore:
    """Blobs in one folder, at most `bytes_max` of them; the longest unused go first."""

    def __init__(self, folder: Path, me: PeerId, *, bytes_max: int = 4 << 30) -> None:
        self._folder = folder
        self._me = me
        self._bytes_max = bytes_max
        self._fetching: dict[ContentHash, trio.Lock] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def put(self, data: bytes) -> ContentRef:
        """Keep `data`.

        Raises:
            RequestRefusedError: `too_large`.
        """
        if len(data) > CONTENT_BYTES_MAX:
            raise RequestRefusedError("too_large", f"content of {len(data)} bytes")
        name = await trio.to_thread.run_sync(self._write, data)
        return ContentRef(hash=name, bytes_total=len(data), holders=(self._me,))

    async def put_file(self, path: Path) -> ContentRef:
        """Keep a copy of a file.

        Raises:
            RequestRefusedError: `too_large`.
            OSError: it cannot be read.
        """
        size = (await trio.Path(path).stat()).st_size
        if size > CONTENT_BYTES_MAX:
            raise RequestRefusedError("too_large", f"{path} has {size} bytes")
        return await self.put(await trio.Path(path).read_bytes())

    def path(self, name: ContentHash) -> Path | None:
        """Where the blob lies, if we hold it. Read only; gone when the store makes room."""
        path = self._folder / name
        if not path.exists():
            return None
        os.utime(path)
        return path

    async def read(self, ref: ContentRef) -> bytes:
        """The bytes of a blob that we hold.

        Raises:
            RequestRefusedError: `unknown`.
        """
        path = self.path(ref.hash)
        if path is None:
            raise RequestRefusedError("unknown", f"content {ref.hash[:12]} is not held here")
        return await trio.Path(path).read_bytes()

    async def fetch(self, ref: ContentRef, requester: Requester) -> Path:
        """The blob's file, fetched from one of its holders if we do not hold it yet.

        Raises:
            PeerUnreachableError: no holder could deliver it.
        """
        lock = self._fetching.setdefault(ref.hash, trio.Lock())
        try:
            async with lock:
                if path := self.path(ref.hash):
                    return path
                complaints: list[str] = []
                for holder in ref.holders:
                    if holder == self._me:
                        continue
                    try:
                        return await self._fetch_from(holder, ref, requester)
                    except (
                        PeerUnreachableError,
                        RequestRefusedError,
                        RequestFailedError,
                        RemoteProtocolError,
                    ) as error:
                        complaints.append(f"{holder[-6:]}: {error}")
                why = "; ".join(complaints) or "no peer is named that holds it"
                raise PeerUnreachableError(f"content {ref.hash[:12]}: {why}")
        finally:
            if not lock.statistics().tasks_waiting:
                self._fetching.pop(ref.hash, None)

    async def _fetch_from(self, holder: PeerId, ref: ContentRef, requester: Requester) -> Path:
        part = self._folder / f"{ref.hash}.part"
        offset = part.stat().st_size if part.exists() else 0
        async with await trio.open_file(part, "ab") as file:
            while offset < ref.bytes_total:
                wanted = min(CONTENT_CHUNK_BYTES, ref.bytes_total - offset)
                asked = ContentAsked(hash=ref.hash, offset=offset, bytes_max=wanted)
                chunk = await requester.request_chunk(holder, asked, timeout_s=CHUNK_TIMEOUT_S)
                if not 0 < len(chunk.data) <= wanted:
                    raise RemoteProtocolError(f"{len(chunk.data)} bytes for {wanted} asked")
                await file.write(chunk.data)
                offset += len(chunk.data)
        return await trio.to_thread.run_sync(self._adopt, part, ref)

    async def answer(self, _conversation: Conversation, request: Message) -> Message:
        """Serve the content conversation."""
        if not isinstance(request, ContentAsked):
            raise RemoteProtocolError(f"{request.KIND} in a content conversation")
        path = self.path(request.hash)
        if path is None:
            raise RequestRefusedError("unknown", f"content {request.hash[:12]} is not held here")
        size = path.stat().st_size
        async with await trio.open_file(path, "rb") as file:
            await file.seek(request.offset)
            data = await file.read(request.bytes_max)
        return ContentChunk(data=data, bytes_total=size)

    def _write(self, data: bytes) -> ContentHash:
        name = ids.content_hash(data)
        path = self._folder / name
        if not path.exists():
            self._make_room(len(data))
            draft = self._folder / f"{name}.{secrets.token_hex(4)}.draft"
            draft.write_bytes(data)
            draft.replace(path)
        return name

    def _adopt(self, part: Path, ref: ContentRef) -> Path:
        digest = sha256()
        with part.open("rb") as file:
            while block := file.read(READ_BYTES):
                digest.update(block)
        if digest.hexdigest() != ref.hash:
            part.unlink()
            raise RemoteProtocolError(f"content {ref.hash[:12]} arrived with another hash")
        self._make_room(ref.bytes_total)
        return part.replace(self._folder / ref.hash)

    def _make_room(self, wanted: int) -> None:
        blobs = sorted(
            ((s.st_mtime, s.st_size, p) for p in self._folder.iterdir() for s in (p.stat(),)),
            key=lambda blob: blob[0],
        )
        used = sum(size for _, size, _ in blobs)
        for _, size, path in blobs:
            if used + wanted <= self._bytes_max:
                return
            path.unlink(missing_ok=True)
            used -= size
