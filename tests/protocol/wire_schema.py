"""`wire.cddl` as tests need it: as schemas of the independent validator, and as lists of fields."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from pycddl import Schema, ValidationError

import kowalski.protocol

PATH: Final = Path(kowalski.protocol.__path__[0]) / "wire.cddl"


@dataclass(frozen=True, slots=True)
class Field:
    """One line of a map: `default` is what the comment says in JSON, if it says anything."""

    type: str
    is_optional: bool
    default: object


@cache
def text() -> str:
    return PATH.read_text(encoding="ascii")


# What pycddl 0.6.4 does not see, said so that it does; each means the same by RFC 8610.
_CLEARER: Final = (
    # matches an expression to any part of a text
    (r'\.regexp "([^"]*)"', r'.regexp "^(?:\1)$"'),
    # takes a number for a text or for bytes of some size
    (r"([tb]str) (\.size \([0-9.]+\))", r"\1 .and (\1 \2)"),
)


@cache
def schema(rule: str) -> Schema:
    clear = text()
    for pattern, replacement in _CLEARER:
        clear = re.sub(pattern, replacement, clear)
    return Schema(f"start = {rule}\n{clear}")


def is_valid(rule: str, data: bytes) -> bool:
    try:
        schema(rule).validate_cbor(data)
    except ValidationError:
        return False
    return True


def rule_of(kind: str) -> str:
    return kind.replace("/", "-")


@cache
def kinds() -> dict[str, str]:
    """The rule of each kind that is part of `frame`, directly or through `journal-frame`."""
    framed = re.findall(r'^([a-z-]+) = \[1, "([a-z/-]+)", ', text(), flags=re.MULTILINE)
    rules = {kind: rule for rule, kind in framed}
    sayable = choices("frame") | choices("journal-frame")
    assert sayable - {"journal-frame"} == set(rules.values()), "a frame that nobody may send"
    return rules


def choices(rule: str) -> set[str]:
    found = re.search(rf"^{rule} =\n((?:  .*\n)+)", text(), flags=re.MULTILINE)
    assert found, rule
    return set(found[1].replace("/", " ").split())


@cache
def maps() -> dict[str, dict[str, Field]]:
    """The fields of every rule that is a map, or a frame around one."""
    found: dict[str, dict[str, Field]] = {}
    for rule, inner in re.findall(
        r'^([a-z-]+) = (?:\[1, "[^"]+", )?\{\n(.*?)^\}', text(), flags=re.MULTILINE | re.DOTALL
    ):
        found[rule] = dict(map(_field, inner.splitlines()[:-1]))
        assert inner.endswith("  * tstr => any\n"), f"{rule} cannot grow"
    for rule, inner in re.findall(
        r'^([a-z-]+) = \[1, "[^"]+", ([a-z-]+)\]$', text(), flags=re.MULTILINE
    ):
        found[rule] = found[inner]
    empty = r'^([a-z-]+) = \[1, "[^"]+", \{ \* tstr => any \}\]$'
    return found | {rule: {} for rule in re.findall(empty, text(), flags=re.MULTILINE)}


def _field(line: str) -> tuple[str, Field]:
    found = re.fullmatch(r'  (\? )?"([a-z0-9_]+)": (.*?),(?:    ; (.*))?', line)
    assert found, line
    optional, name, type_, comment = found.groups()
    default = re.match(r"default (\S+)", comment or "")
    return name, Field(
        type=type_,
        is_optional=optional is not None,
        default=json.loads(default[1].rstrip(",;")) if default else None,
    )
