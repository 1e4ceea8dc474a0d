"""Typed answers: whether a text is JSON of a schema, and in words what does not fit.

The only module that imports jsonschema-rs, when the first schema comes: it takes 3 MB. Schemas come
from other peers, so nothing here may take long or look anywhere: references lead nowhere but into
the schema itself, and patterns run on an engine that is linear in the text (no lookaround, no
backreferences).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    import jsonschema_rs

COMPLAINTS_MAX: Final = 5
COMPLAINT_CHARS_MAX: Final = 300

_FENCED = re.compile(
    r"^[ ]{0,3}(`{3,})[\w+-]*[ \t]*\n(.*?)^[ ]{0,3}\1[ \t]*$", re.MULTILINE | re.DOTALL
)


class SchemaError(ValueError):
    """What was given as a schema is none, or one that cannot be checked here."""


@dataclass(frozen=True, slots=True)
class Fits:
    """`text` is the value as JSON, without whatever stood around it."""

    text: str


@dataclass(frozen=True, slots=True)
class Misfits:
    complaint: str


def check_schema(json_schema: str) -> None:
    """Return if answers can be held against it.

    Raises:
        SchemaError: why not.
    """
    _validator(json_schema)


def fit(answer: str, json_schema: str) -> Fits | Misfits:
    """The JSON in `answer`, if it is of the schema.

    It may stand alone or in a fenced block, of which the last one counts; where a plain text fits
    as a string, no quotes are needed.

    Raises:
        SchemaError: as `check_schema`.
    """
    validator = _validator(json_schema)
    complaint = ""
    for text in _candidates(answer):
        try:
            value = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            complaint = complaint or f"it is no JSON: {error}"
            continue
        if validator.is_valid(value):
            return Fits(json.dumps(value, ensure_ascii=False))
        complaint = _complaint(validator, value)
    plain = answer.strip()
    if validator.is_valid(plain):
        return Fits(json.dumps(plain, ensure_ascii=False))
    return Misfits(complaint)


@lru_cache(maxsize=64)
def _validator(json_schema: str) -> jsonschema_rs.Validator:
    import jsonschema_rs  # noqa: PLC0415 few tasks have a schema

    try:
        schema = json.loads(json_schema, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"the schema is no JSON: {error}") from error
    if not isinstance(schema, dict | bool):
        raise SchemaError(f"a schema is an object, not {json_schema[:40]}")
    try:
        return jsonschema_rs.validator_for(
            schema,
            pattern_options=jsonschema_rs.RegexOptions(),
            offline=True,
        )
    except ValueError as error:
        raise SchemaError(_cut(str(error).split("\n\n", maxsplit=1)[0])) from error


def _candidates(answer: str) -> list[str]:
    fenced = [found[2] for found in _FENCED.finditer(answer)]
    return [answer, *reversed(fenced[-3:])]


def _complaint(validator: jsonschema_rs.Validator, value: object) -> str:
    told = []
    for number, error in enumerate(validator.iter_errors(value)):
        if number == COMPLAINTS_MAX:
            told.append("and more")
            break
        where = "".join(f"/{step}" for step in error.instance_path)
        told.append(_cut(f"{where or 'the value'}: {error.message}"))
    return "; ".join(told)


def _cut(text: str) -> str:
    if len(text) <= COMPLAINT_CHARS_MAX:
        return text
    return text[: COMPLAINT_CHARS_MAX - 2] + " …"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
