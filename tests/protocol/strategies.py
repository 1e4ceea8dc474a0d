"""Every message that the models allow, as hypothesis strategies, read off the models themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from pydantic import BaseModel

from kowalski.protocol.codec import encode
from kowalski.protocol.join_line import JoinLine
from kowalski.protocol.messages import detached, journal, task, trust
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.registry import MESSAGES

JOURNAL_KINDS: Final = tuple(kind for kind in MESSAGES if kind.startswith("journal/"))


def messages(kind: str | None = None) -> SearchStrategy[Message]:
    """Any message of `kind`, or of any kind."""
    return of(MESSAGES[kind]) if kind else st.sampled_from(sorted(MESSAGES)).flatmap(messages)


def join_lines() -> SearchStrategy[JoinLine]:
    return of(JoinLine)


@cache
def of(model: type[BaseModel]) -> SearchStrategy[Any]:
    """Any instance of a message or record."""
    schema = model.__pydantic_core_schema__
    definitions = {entry["ref"]: entry for entry in schema.get("definitions", ())}
    return _model(model, _fields(schema, definitions), definitions)


def fields_of(model: type[BaseModel]) -> dict[str, Mapping[str, Any]]:
    """The core schemas of a model's fields, references followed, defaults taken off."""
    schema = model.__pydantic_core_schema__
    definitions = {entry["ref"]: entry for entry in schema.get("definitions", ())}
    return {
        name: _bare(field["schema"], definitions)
        for name, field in _fields(schema, definitions).items()
    }


def _bare(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    while schema["type"] in ("default", "nullable", "definitions", "definition-ref"):
        reference = schema.get("schema_ref")
        schema = definitions[reference] if reference else schema["schema"]
    return schema


def _fields(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = _bare(schema, definitions)["schema"]["fields"]
    return fields


def _model(
    model: type[BaseModel], fields: Mapping[str, Any], definitions: Mapping[str, Any]
) -> SearchStrategy[Any]:
    always: dict[str, SearchStrategy[Any]] = {}
    sometimes: dict[str, SearchStrategy[Any]] = {}
    for name, field in fields.items():
        schema = field["schema"]
        chosen = sometimes if schema["type"] == "default" else always
        frames = _FRAMES.get((model, name))
        chosen[name] = _values(schema, definitions) if frames is None else frames
    return st.fixed_dictionaries(always, optional=sometimes).map(lambda values: model(**values))


def _values(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> SearchStrategy[Any]:
    make = _BY_TYPE[schema["type"]]
    return make(schema, definitions)


def _text(schema: Mapping[str, Any], _: Mapping[str, Any]) -> SearchStrategy[str]:
    if pattern := schema.get("pattern"):
        return _matching(pattern)
    least = schema.get("min_length", 0)
    return st.text(min_size=least, max_size=min(schema.get("max_length", 24), 24))


@cache
def _matching(pattern: str) -> SearchStrategy[str]:
    if pattern == r"^[0-9a-f]{64}$":  # the common one, drawn in one piece
        return st.integers(0, 2**256 - 1).map(lambda number: f"{number:064x}")
    return st.from_regex(pattern.removeprefix("^").removesuffix("$"), fullmatch=True)


def _number(schema: Mapping[str, Any], _: Mapping[str, Any]) -> SearchStrategy[int]:
    return st.integers(schema["ge"], schema["le"])


def _float(schema: Mapping[str, Any], _: Mapping[str, Any]) -> SearchStrategy[float]:
    return st.floats(schema["ge"], schema["le"])


def _bytes(schema: Mapping[str, Any], _: Mapping[str, Any]) -> SearchStrategy[bytes]:
    least = schema.get("min_length", 0)
    return st.binary(min_size=least, max_size=max(least, min(schema["max_length"], 24)))


def _tuple(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> SearchStrategy[Any]:
    items = _values(schema["items_schema"][0], definitions)
    return st.lists(items, max_size=min(schema["max_length"], 3)).map(tuple)


def _dict(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> SearchStrategy[Any]:
    keys = _values(schema["keys_schema"], definitions)
    values = _values(schema["values_schema"], definitions)
    return st.dictionaries(keys, values, max_size=min(schema["max_length"], 3))


_Make = Callable[[Mapping[str, Any], Mapping[str, Any]], SearchStrategy[Any]]
_BY_TYPE: Final[dict[str, _Make]] = {
    "bool": lambda _schema, _: st.booleans(),
    "bytes": _bytes,
    "default": lambda schema, known: _values(schema["schema"], known),
    "definition-ref": lambda schema, known: _values(known[schema["schema_ref"]], known),
    "dict": _dict,
    "float": _float,
    "function-after": lambda schema, known: _values(schema["schema"], known),
    "int": _number,
    "literal": lambda schema, _: st.sampled_from(schema["expected"]),
    "model": lambda schema, known: _model(schema["cls"], _fields(schema, known), known),
    "nullable": lambda schema, known: st.none() | _values(schema["schema"], known),
    "str": _text,
    "tuple": _tuple,
}

# Bytes that are frames themselves.
_FRAMES: Final[dict[tuple[type[BaseModel], str], SearchStrategy[bytes]]] = {
    (journal.ChildHappened, "event"): st.sampled_from(
        [kind for kind in JOURNAL_KINDS if kind != "journal/child-happened"]
    )
    .flatmap(messages)
    .map(encode),
    (task.Entry, "body"): st.sampled_from(JOURNAL_KINDS).flatmap(messages).map(encode),
    (trust.SignedCertificate, "frame"): st.deferred(
        lambda: messages("trust/certificate").map(encode)
    ),
    (detached.Delegated, "frame"): st.deferred(lambda: messages("detached/delegation").map(encode)),
    (trust.Issuer, "frame"): st.deferred(lambda: messages("trust/certificate").map(encode)),
    (trust.SignedRevocation, "frame"): st.deferred(
        lambda: messages("trust/revocation").map(encode)
    ),
}
