"""What goes with a task: texts and files that the node reads from this device's disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from kowalski.errors import ConfigError

Context = str | bytes | Path | Mapping[str, str | bytes | Path] | None
"""A text, a file, or several of them by name; they are in no model's window."""


class spooled:  # noqa: N801 used like a function
    """Context files for the node, which reads them from disk; texts go to files of ours for it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._made: list[str] = []

    def __enter__(self) -> list[dict[str, str]]:
        given = self._context
        named = given if isinstance(given, Mapping) else {} if given is None else {"": given}
        try:
            return [self._file(name, one) for name, one in named.items()]
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        for path in self._made:
            with suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108

    def _file(self, name: str, content: str | bytes | Path) -> dict[str, str]:
        if isinstance(content, Path):
            path = content.expanduser().resolve()
            if not path.is_file():
                raise ConfigError(f"context {content}: no such file")
            return {"name": name or path.name, "path": str(path)}
        data = content.encode(errors="surrogatepass") if isinstance(content, str) else content
        handle, place = tempfile.mkstemp(prefix="kowalski-context-")
        self._made.append(place)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        return {"name": name or "context", "path": place}
