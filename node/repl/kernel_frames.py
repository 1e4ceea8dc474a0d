"""The control channel to a kernel, host side: frames of four bytes of length and JSON.

Code inside the sandbox can write to this channel too, so what comes out is untrusted: bounded,
validated, never evaluated. The other end is `kernels/channel.py`.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Annotated, Literal

import trio
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from kowalski.protocol.errors import PeerUnreachableError, RemoteProtocolError
from kowalski.protocol.limits import TEXT_BYTES_MAX
from kowalski.protocol.messages.repl import CLOCK_READINGS_MAX, VARIABLES_MAX

FRAME_BYTES_MAX = 8 * 1024 * 1024
"""`kernels/channel.py` keeps to the same bound and tells the cell when a prompt is too long."""

_HEAD_BYTES = 4
_FRAME_ENDS_S_MAX = 0.25
_READ_BYTES = 256 * 1024
_TOLD_CHARS_MAX = 64 * 1024
# A cut mark comes on top of what the kernel keeps.
_ANSWER_CHARS_MAX = TEXT_BYTES_MAX + 100


class _Frame(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class Ready(_Frame):
    op: Literal["ready"]
    version: Annotated[str, Field(max_length=64)]


class Call(_Frame):
    kind: Literal["llm", "rlm", "unfold", "find", "history", "budget"]
    prompt: str
    model: Annotated[str, Field(max_length=256)] | None = None


class Calls(_Frame):
    op: Literal["calls"]
    id: Annotated[int, Field(ge=0, le=2**53)]
    calls: Annotated[tuple[Call, ...], Field(min_length=1, max_length=4096)]


class Built(_Frame):
    """Where the compiler has put a program, before it runs; waits for `seen`."""

    op: Literal["built"]
    cell: int
    path: Annotated[str, Field(max_length=4096)]


_VariableName = Annotated[str, Field(min_length=1, max_length=128)]
_VariableDigest = Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
_Microseconds = Annotated[int, Field(ge=0, le=2**53)]


class Done(_Frame):
    op: Literal["done"]
    cell: int
    status: Literal["ok", "error", "interrupted", "memory"]
    value: Annotated[str, Field(max_length=_TOLD_CHARS_MAX)] | None = None
    error: Annotated[str, Field(max_length=_TOLD_CHARS_MAX)] | None = None
    answer_content: Annotated[str, Field(max_length=_ANSWER_CHARS_MAX)] | None = None
    answer_is_ready: bool = False
    digest: Annotated[str, Field(max_length=64)] = ""
    variables: Annotated[dict[_VariableName, _VariableDigest], Field(max_length=VARIABLES_MAX)] = (
        Field(default_factory=dict)
    )
    """The beginning of a digest of each, where the kernel tells them apart."""
    clock: Annotated[tuple[_Microseconds, ...], Field(max_length=CLOCK_READINGS_MAX)] = ()
    """What the cell was told when it asked for the time, in order."""
    exit_code: Annotated[int, Field(ge=0, le=255)] = 0


KernelFrame = Ready | Calls | Built | Done
_adapter: TypeAdapter[KernelFrame] = TypeAdapter(Annotated[KernelFrame, Field(discriminator="op")])


class KernelChannel:
    """One reader; any number of senders, one frame at a time.

    Cancelling either is harmless. A frame that a cancelled sender could not finish in time, because
    nobody reads, leaves the channel `is_broken`.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = trio.socket.from_stdlib_socket(end)
        self._sending = trio.Lock()
        self._received = bytearray()
        self.is_broken = False

    async def send(self, message: Mapping[str, object]) -> None:
        """Raises PeerUnreachableError when the kernel is gone."""
        body = json.dumps(message, ensure_ascii=False).encode("utf-8", "replace")
        async with self._sending:
            if self.is_broken:
                raise PeerUnreachableError("a frame was cut")
            try:
                await self._write(len(body).to_bytes(_HEAD_BYTES, "big") + body)
            except (OSError, trio.ClosedResourceError) as error:
                self.is_broken = True
                raise PeerUnreachableError("the kernel is gone") from error

    async def receive(self) -> KernelFrame:
        """The next frame.

        Raises:
            PeerUnreachableError: the kernel is gone.
            RemoteProtocolError: something else than our kernel's frames came.
        """
        while (body := self._take()) is None:
            try:
                data = await self._socket.recv(_READ_BYTES)
            except (OSError, trio.ClosedResourceError) as error:
                raise PeerUnreachableError("the kernel is gone") from error
            if not data:
                raise PeerUnreachableError("the kernel is gone")
            self._received += data
        try:
            return _adapter.validate_json(body)
        except ValidationError as error:
            raise RemoteProtocolError(f"no kernel's frame: {error.error_count()} errors") from error

    def close(self) -> None:
        """Whoever sends or receives meanwhile hears that the kernel is gone."""
        self._socket.close()

    async def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[await self._socket.send(rest) :]
        except trio.Cancelled:
            # Half a frame would cost the session; the kernel reads all the time.
            with trio.CancelScope(shield=True), trio.move_on_after(_FRAME_ENDS_S_MAX):
                while rest:
                    rest = rest[await self._socket.send(rest) :]
            self.is_broken = bool(rest)
            raise

    def _take(self) -> bytes | None:
        if len(self._received) < _HEAD_BYTES:
            return None
        length = int.from_bytes(self._received[:_HEAD_BYTES], "big")
        if length > FRAME_BYTES_MAX:
            raise RemoteProtocolError(f"frame of {length} bytes from a kernel")
        if len(self._received) < _HEAD_BYTES + length:
            return None
        body = bytes(self._received[_HEAD_BYTES : _HEAD_BYTES + length])
        del self._received[: _HEAD_BYTES + length]
        return body
