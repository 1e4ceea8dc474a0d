"""Programs that were compiled once, by language, version and source: a folder of files.

What is kept was built in a session that had run nothing before, so nobody but the compiler has had
a hand in it; and it only ever runs in the sandbox of who sends the same source.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from hashlib import sha256
from pathlib import Path

PROGRAM_BYTES_MAX = 192 * 1024 * 1024
LIBRARY = "\0library"
"""In place of a source: what a language's own library was compiled to."""

_MODE = 0o555


class CompileCache:
    """At most `bytes_max` bytes of programs; the longest unused go first. Blocks on disk."""

    def __init__(self, folder: Path, *, bytes_max: int = 512 * 1024 * 1024) -> None:
        self._folder = folder
        self._bytes_max = bytes_max

    def find(self, language: str, version: str, code: str) -> Path | None:
        """The program, to be read or linked and not to be changed."""
        path = self._place(language, version, code)
        try:
            os.utime(path)
        except OSError:
            return None
        return path

    def keep(self, language: str, version: str, code: str, program: bytes) -> None:
        """Nothing where it is too large, or where the disk refuses: the next will compile again."""
        if len(program) > min(PROGRAM_BYTES_MAX, self._bytes_max):
            return
        path = self._place(language, version, code)
        draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.draft")
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                self._make_room(len(program))
                draft.write_bytes(program)
                draft.chmod(_MODE)
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)

    def _place(self, language: str, version: str, code: str) -> Path:
        said = f"{language}\0{version}\0{code}".encode("utf-8", "surrogatepass")
        return self._folder / sha256(said).hexdigest()

    def _make_room(self, wanted: int) -> None:
        found: list[tuple[float, int, Path]] = []
        for path in self._folder.iterdir():
            with contextlib.suppress(OSError):
                about = path.stat()
                found.append((about.st_mtime, about.st_size, path))
        left = self._bytes_max - wanted - sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if left >= 0:
                return
            path.unlink(missing_ok=True)
            left += size
