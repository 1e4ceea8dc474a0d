"""Runs the code with a line or two of it made wrong, without touching a file.

The line is replaced when its module is imported, so this must be asked for before anything of
`kowalski` is; hence this module imports none of it. Where the line is not there any more, or more
than once, the mutant is stale, and says so.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).parent.parent


class StaleMutantError(Exception):
    """The code has changed, and nobody has told the mutant."""


@dataclass(frozen=True, slots=True)
class Change:
    """In `path`, below the root, `old` becomes `new`. `old` must be there exactly once."""

    path: str
    old: str
    new: str

    @property
    def module(self) -> str:
        """By its import name: the folders `protocol`, `mesh` and `node` are in `kowalski`."""
        name = self.path.removesuffix(".py").replace("/", ".")
        return name if name.startswith("kowalski.") else f"kowalski.{name}"

    def made_in(self, source: str) -> str:
        """Raises StaleMutantError."""
        found = source.count(self.old)
        if found != 1:
            raise StaleMutantError(f"{self.path} has {found} times: {self.old!r}")
        return source.replace(self.old, self.new)

    def check(self) -> None:
        """Raises StaleMutantError: the code has changed."""
        self.made_in((ROOT / self.path).read_text(encoding="utf-8"))


class _Loader(SourceFileLoader):
    changes: tuple[Change, ...]

    def get_code(self, fullname: str) -> CodeType:
        del fullname
        source = Path(self.path).read_text(encoding="utf-8")
        for change in self.changes:
            source = change.made_in(source)
        compiled: CodeType = compile(source, self.path, "exec", dont_inherit=True)
        return compiled


class _Finder(MetaPathFinder):
    def __init__(self, changes: Sequence[Change]) -> None:
        self._changes = tuple(changes)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        changes = tuple(one for one in self._changes if one.module == fullname)
        if not changes:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None:
            return None
        loader = _Loader(fullname, spec.origin)
        loader.changes = changes
        spec.loader = loader
        return spec


def install(changes: Sequence[Change]) -> None:
    """Make these changes in everything that is imported from now on, in this process."""
    late = [change.module for change in changes if change.module in sys.modules]
    assert not late, f"{late} are imported already"
    sys.meta_path.insert(0, _Finder(changes))
