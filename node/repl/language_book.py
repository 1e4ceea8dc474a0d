"""Remembers which languages worked in which sandbox, so that a start of the node tries none again.

A line holds as long as the language's programs are the same files, the sandbox is the same tier and
this program has the same kernels. A book that cannot be read or written is an empty one.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

log = structlog.get_logger(__name__)


class Line(BaseModel):
    """`version` is empty where the language did not work."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    condition: str
    version: str


_adapter = TypeAdapter(dict[str, Line])


class LanguageBook:
    """`path` None: nothing is remembered. Blocks on disk."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self) -> Mapping[str, Line]:
        """Everything that is remembered, by language."""
        if self._path is None:
            return {}
        try:
            return _adapter.validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            log.info("language-book-unreadable", path=str(self._path), why=str(error))
            return {}

    def write(self, language: str, condition: str, version: str) -> None:
        """Remember one more."""
        if self._path is None:
            return
        lines = {**self.read(), language: Line(condition=condition, version=version)}
        draft = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}.draft")
        try:
            draft.write_text(json.dumps({name: line.model_dump() for name, line in lines.items()}))
            os.replace(draft, self._path)  # noqa: PTH105
        except OSError as error:
            log.info("language-book-unwritable", path=str(self._path), why=str(error))
            draft.unlink(missing_ok=True)
