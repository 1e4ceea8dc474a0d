"""Bodies with one thing wrong each, derived from the models: what everybody must refuse.

Left out is what pycddl 0.6.4 cannot see or dies of: bytes for a number, a list of a float for the
float, bytes for one of some words, an empty list for an item of which all is optional, and anything
wrong in a list behind its first item.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from kowalski.protocol.messages.telemetry import Hot, HotDelta, Profile
from tests.protocol.strategies import fields_of

Broken = tuple[str, dict[str, Any]]
"""Where and how, and the whole body."""


def broken_bodies(body: dict[str, Any], model: type[BaseModel]) -> Iterator[Broken]:
    """`body` is the plain form of a valid instance of `model` with all its fields set.

    Of a `Hot` or a `Profile` inside something else only the outside is broken: they have kinds of
    their own.
    """
    for name, schema in fields_of(model).items():
        if model.model_fields[name].is_required():
            yield f"without {name}", {key: body[key] for key in body if key != name}
            yield f"{name} null", body | {name: None}
        for how, value in _broken(body.get(name), schema, model):
            yield f"{name}{how}", body | {name: value}


def _broken(
    value: Any,  # noqa: ANN401
    schema: Mapping[str, Any],
    inside: type[BaseModel],
) -> Iterator[tuple[str, Any]]:
    match schema["type"]:
        case "model" if schema["cls"] in (Hot, Profile) and inside is not HotDelta:
            yield from _others([], "text")
        case "model" if value is None:  # an optional part, which another example has
            yield from _others([], "text")
        case "model":
            yield from ((f".{how}", inner) for how, inner in broken_bodies(value, schema["cls"]))
            yield from _others([], "text")
        case "tuple":
            item, most = value[0], schema["max_length"]
            yield f" of {most + 1} items", [item] * (most + 1)
            inner = _broken(item, fields_of_item(schema), inside)
            yield from (
                (f"[0]{how}", [broken])
                for how, broken in inner
                if broken != [] or _needs_something(fields_of_item(schema))
            )
            yield from _others({}, "text", 0)
        case "dict":
            key, most = next(iter(value)), schema["max_length"]
            yield f" of {most + 1} items", {str(n): value[key] for n in range(most + 1)}
            inner = _broken(value[key], schema["values_schema"], inside)
            yield from ((f"[{key}]{how}", {key: broken}) for how, broken in inner)
            yield from _others([], "text", 0)
        case _:
            yield from _broken_scalar(schema)


def fields_of_item(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    item: Mapping[str, Any] = schema["items_schema"][0]
    return item


def _needs_something(schema: Mapping[str, Any]) -> bool:
    model = schema.get("cls")
    return model is None or any(one.is_required() for one in model.model_fields.values())


def _broken_scalar(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    match schema["type"]:
        case "str":
            if "pattern" in schema:
                yield from _others("", "\n", "/ä", "x" * 300, " a1", "a1 ", "a\n")
            if "min_length" in schema:
                yield from _others("")
            if "max_length" in schema:
                yield "too long", "\N{WHALE}" * (schema["max_length"] + 1)
            yield from _others(7, b"bytes", [], True)
        case "function-after":
            most = schema["function"]["function"].__self__.bytes_max
            yield "too long", "x" * (most + 1)
            yield "too heavy", "\N{WHALE}" * (most // 4 + 1)
            yield from _broken_scalar(schema["schema"])
        case "bytes":
            yield "too long", bytes(schema["max_length"] + 1)
            if "min_length" in schema:
                yield "too short", bytes(schema["min_length"] - 1)
            yield from _others("text", 7, [0])
        case "int":
            yield from _others(schema["ge"] - 1, schema["le"] + 1, "1", 1.5, True, [1])
        case "float":
            low, high = schema["ge"], schema["le"]
            yield from _others(low - 0.001, high + 0.001, low - 1, high + 1)
            yield from _others(float("nan"), float("inf"), -float("inf"), "1.0", True)
        case "bool":
            yield from _others(0, 1, "true", b"", [])
        case "literal":
            yield from _others("nobody-says-this", 0, [])
        case unexpected:
            raise AssertionError(unexpected)


def _others(*values: object) -> Iterator[tuple[str, Any]]:
    yield from ((f" {value!r:.20}", value) for value in values)
