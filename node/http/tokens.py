"""The token that other machines show to the HTTP server: a file that only its owner can read."""

from __future__ import annotations

import secrets
from pathlib import Path

from kowalski.mesh.private_files import write_private
from kowalski.protocol.errors import ConfigError

TOKEN_BYTES = 24
TOKEN_CHARS_MAX = 512
TOKEN_CHARS_MIN = 16


class TokenFile:
    """Read again when it has changed, so that a new token counts at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[int, str] | None = None

    def current(self) -> str | None:
        """The token, None where there is none that holds."""
        try:
            changed_ns = self._path.stat().st_mtime_ns
            if self._read is None or self._read[0] != changed_ns:
                self._read = changed_ns, read_token(self._path)
        except (OSError, ConfigError):
            return None
        return self._read[1]

    def ensure(self) -> str:
        """The token, made where there is none.

        Raises:
            ConfigError: it cannot be read or written, or is too short to be one.
        """
        return read_token(self._path) if self._path.exists() else self.rotate()

    def rotate(self) -> str:
        """A new one in the place of the old. Raises ConfigError: it cannot be written."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        write_private(self._path, f"{token}\n".encode())
        return token


def read_token(path: Path) -> str:
    """Raises ConfigError: it cannot be read, or is no token."""
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not TOKEN_CHARS_MIN <= len(token) <= TOKEN_CHARS_MAX or not token.isprintable():
        raise ConfigError(
            f"{path} holds no token of {TOKEN_CHARS_MIN} to {TOKEN_CHARS_MAX} characters; "
            "make one with: kowalski-node token --rotate"
        )
    return token
