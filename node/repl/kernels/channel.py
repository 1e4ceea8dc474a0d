# The kernel's end of the control channel. Its text is put in front of each kernel's, so that a
# kernel is one file; both run inside the sandbox, alone, with the standard library only.
#
# A frame is four bytes of length, big-endian, and that many bytes of JSON.

import json
import os
import sys
import threading

FRAME_BYTES_MAX = 8 * 1024 * 1024


class FrameTooLongError(Exception):
    pass


class Channel:
    def __init__(self, fd):
        self.fd = fd
        self._lock = threading.Lock()
        # While the main thread writes a frame no interrupt may cut it in half.
        self.is_main_sending = False
        # What a cell starts must not be able to speak in the kernel's name by accident.
        os.set_inheritable(fd, False)

    def send(self, message):
        body = json.dumps(message, ensure_ascii=False).encode("utf-8", "replace")
        if len(body) > FRAME_BYTES_MAX:
            raise FrameTooLongError(f"frame of {len(body)} bytes; at most {FRAME_BYTES_MAX}")
        data = memoryview(len(body).to_bytes(4, "big") + body)
        is_main = threading.current_thread() is threading.main_thread()
        if is_main:
            self.is_main_sending = True
        try:
            with self._lock:
                while data:
                    data = data[os.write(self.fd, data) :]
        finally:
            if is_main:
                self.is_main_sending = False

    def receive(self):
        """The next message, or None when the host is gone."""
        head = self._exactly(4)
        body = head and self._exactly(int.from_bytes(head, "big"))
        return json.loads(body) if body else None

    def _exactly(self, count):
        chunks = []
        while count:
            chunk = os.read(self.fd, min(count, 1 << 20))
            if not chunk:
                return None
            chunks.append(chunk)
            count -= len(chunk)
        return b"".join(chunks)


def go_first():
    """When memory is short."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass


def run_last():
    """When the processor is wanted by others."""
    try:
        os.nice(10)
    except OSError:
        pass


def cut(text, chars_max):
    """Head and tail of `text`, with a mark between them where something is missing."""
    if len(text) <= chars_max:
        return text
    half = chars_max // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters cut ...]\n{text[-half:]}"


def close_all_but(fd):
    """Drop every descriptor but the standard three and `fd`: the kernel's own file, for one."""
    os.closerange(3, fd)
    os.closerange(fd + 1, 1024)
