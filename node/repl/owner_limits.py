"""What the owner of a device lets sessions use, as settings say it: `memory=512M`, `js.cell=5m`.

Whoever asks for a cell can ask for less time, never for more of anything. Pure: text in, `Limits`
out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from kowalski.node.repl.limits import MIB, CellLimits, Limits, SessionLimits

_SIZES: Mapping[str, int] = MappingProxyType(
    {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
)
_DURATIONS: Mapping[str, int] = MappingProxyType(
    {"": 1, "s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
)
_COUNTS: Mapping[str, int] = MappingProxyType({"": 1})
_SETTING = re.compile(r"(?:([a-z]{1,20})\.)?([a-z-]{1,20})=(\d{1,12})([A-Za-z]?)")

LANGUAGES = ("python", "bash", "js", "typescript", "ruby", "perl", "rust", "java", "go")
"""Those of `languages`, which is too heavy for who only reads settings."""


@dataclass(frozen=True, slots=True)
class _Name:
    """A limit that can be set: its unit, and between which bounds it makes sense."""

    units: Mapping[str, int]
    least: int
    most: int
    field: str
    is_of_cells: bool = False


NAMES: Mapping[str, _Name] = MappingProxyType(
    {
        "memory": _Name(_SIZES, 32 * MIB, 1 << 44, "memory_bytes"),
        "process-memory": _Name(_SIZES, 32 * MIB, 1 << 44, "process_memory_bytes"),
        "processes": _Name(_COUNTS, 4, 32_768, "processes"),
        "cpu": _Name(_DURATIONS, 1, 10_000_000, "cpu_s"),
        "file": _Name(_SIZES, 64 * 1024, 1 << 44, "file_bytes"),
        "folder": _Name(_SIZES, MIB, 1 << 44, "folder_bytes"),
        "files": _Name(_COUNTS, 100, 100_000_000, "inodes"),
        "open-files": _Name(_COUNTS, 32, 1_000_000, "open_files"),
        "output": _Name(_SIZES, 64 * 1024, 1 << 32, "output_bytes_max", is_of_cells=True),
        "cell": _Name(_DURATIONS, 1, 10_000_000, "wall_s", is_of_cells=True),
    }
)
"""By the word that settings use."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One limit, of one language or of all."""

    language: str | None
    name: str
    value: int


def read(text: str) -> Setting:
    """What one setting says.

    Raises:
        ValueError: it says nothing that makes sense; in words for the owner.
    """
    match = _SETTING.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not like memory=512M or js.cell=5m")
    language, name, number, unit = match.groups()
    if language is not None and language not in LANGUAGES:
        raise ValueError(f"no language {language!r}; there are {', '.join(LANGUAGES)}")
    known = NAMES.get(name)
    if known is None:
        raise ValueError(f"no limit {name!r}; there are {', '.join(NAMES)}")
    if unit not in known.units:
        units = " ".join(each for each in known.units if each)
        raise ValueError(f"{text!r}: {f'a unit is one of {units}' if units else 'a plain number'}")
    value = int(number) * known.units[unit]
    if not known.least <= value <= known.most:
        least, most = (_shown(bound, known.units) for bound in (known.least, known.most))
        raise ValueError(f"{text!r}: {name} is between {least} and {most}")
    return Setting(language, name, value)


def _shown(value: int, units: Mapping[str, int]) -> str:
    """In the largest unit that leaves no fraction."""
    unit = max((each for each in units if value % units[each] == 0), key=lambda each: units[each])
    return f"{value // units[unit]}{unit}"


def limits_of(settings: Iterable[Setting], defaults: Limits | None = None) -> Limits:
    """`defaults` with what was set; what was set of one language counts more than of all.

    Where a session may use less memory than one of its processes could, each process may use that
    much: its language can say so then, before the session is killed.
    """
    given = tuple(settings)
    limits = defaults or Limits()
    common = _values(given, None)
    session = _session(limits.session, common)
    cell = _cell(limits.cell, common)
    by_language = {language: _session(own, common) for language, own in limits.by_language.items()}
    cell_by_language = {
        language: _cell(own, common) for language, own in limits.cell_by_language.items()
    }
    for language in {one.language for one in given if one.language is not None}:
        own = _values(given, language)
        by_language[language] = _session(by_language.get(language, session), {**common, **own})
        cell_by_language[language] = _cell(cell_by_language.get(language, cell), {**common, **own})
    return Limits(cell, session, by_language, cell_by_language)


def _values(settings: Iterable[Setting], language: str | None) -> dict[str, int]:
    return {one.name: one.value for one in settings if one.language == language}


def _session(limits: SessionLimits, values: Mapping[str, int]) -> SessionLimits:
    limits = replace(limits, **_fields(values, is_of_cells=False))
    if "process-memory" not in values and limits.process_memory_bytes > limits.memory_bytes:
        limits = replace(limits, process_memory_bytes=limits.memory_bytes)
    return limits


def _cell(limits: CellLimits, values: Mapping[str, int]) -> CellLimits:
    limits = replace(limits, **_fields(values, is_of_cells=True))
    kept = min(limits.output_bytes_kept, limits.output_bytes_max)
    return replace(limits, output_bytes_kept=kept)


def _fields(values: Mapping[str, int], *, is_of_cells: bool) -> dict[str, Any]:
    return {
        NAMES[name].field: value
        for name, value in values.items()
        if NAMES[name].is_of_cells == is_of_cells
    }
