"""Our own incarnation on disk: raised at each start, and to contradict a claim about us."""

from __future__ import annotations

from pathlib import Path

import structlog

from kowalski.mesh.private_files import write_private
from kowalski.protocol.errors import ConfigError

log = structlog.get_logger(__name__)


class IncarnationBook:
    """Without a path it lasts as long as the process.

    A disk that refuses is no reason to stop: whoever comes back with an old incarnation hears of
    the newer one at once, and rises above it.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def begin(self) -> int:
        """The incarnation of this start, on disk already."""
        incarnation = self._read() + 1
        self.keep(incarnation)
        return incarnation

    def keep(self, incarnation: int) -> None:
        if self._path is None:
            return
        try:
            write_private(self._path, f"{incarnation}\n".encode())
        except ConfigError as error:
            log.warning("incarnation-not-kept", error=str(error))

    def _read(self) -> int:
        if self._path is None:
            return 0
        try:
            return max(0, int(self._path.read_text("ascii")))
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            log.warning("incarnation-unreadable", path=str(self._path), error=str(error))
            return 0
