"""Output of a cell, kept head and tail within a bound, counted in full."""

from __future__ import annotations

from collections import deque


class KeptOutput:
    """The first and the last half of `bytes_max` bytes; what lies between is forgotten."""

    def __init__(self, bytes_max: int) -> None:
        self._half = bytes_max // 2
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self.total_bytes = 0

    def add(self, data: bytes) -> None:
        self.total_bytes += len(data)
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if not data:
            return
        self._tail.append(data)
        self._tail_bytes += len(data)
        while self._tail_bytes - len(self._tail[0]) >= self._half:
            self._tail_bytes -= len(self._tail.popleft())

    def kept(self) -> bytes:
        """Everything, or head, a mark that says how much is missing, and tail."""
        tail = b"".join(self._tail)[-self._half :] if self._half else b""
        missing = self.total_bytes - len(self._head) - len(tail)
        if missing <= 0:
            return bytes(self._head) + tail
        return bytes(self._head) + f"\n[... {missing} bytes cut ...]\n".encode() + tail
