"""Files that the owner names on the command line, read by the node."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

import trio

from kowalski.protocol.errors import ConfigError


async def check_is_plain(path: Path) -> int:
    """Its size. Devices and pipes may have no end, and who reads one cannot be cancelled.

    Raises:
        OSError: it is no plain file, or not there.
    """
    status = await trio.Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a plain file")
    return status.st_size


async def read_text(path: Path, *, bytes_max: int) -> str:
    """What is in it, with U+FFFD for what is no UTF-8.

    Raises:
        ConfigError: it cannot be read, or is too large.
    """
    try:
        size = await check_is_plain(path)
        if size > bytes_max:
            raise ConfigError(f"{path}: {size} bytes; at most {bytes_max}")
        return (await trio.Path(path).read_bytes()).decode(errors="replace")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
