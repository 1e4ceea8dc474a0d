"""Every message has a kind, every kind a message, and every field an end."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import pytest

from kowalski.protocol import messages
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.registry import MESSAGES
from tests.protocol.strategies import fields_of


def everything_written() -> dict[str, type[Message]]:
    found = {}
    for module in pkgutil.iter_modules(messages.__path__):
        contents = vars(importlib.import_module(f"{messages.__name__}.{module.name}"))
        for thing in contents.values():
            if isinstance(thing, type) and issubclass(thing, Message) and thing is not Message:
                found[thing.KIND] = thing
    return found


def test_every_message_is_in_the_registry_under_its_kind() -> None:
    assert everything_written() == MESSAGES


def test_the_registry_is_in_order() -> None:
    assert list(MESSAGES) == sorted(MESSAGES)


@pytest.mark.parametrize("kind", sorted(MESSAGES))
def test_a_kind_begins_with_its_module(kind: str) -> None:
    assert kind == MESSAGES[kind].KIND
    assert MESSAGES[kind].__module__.endswith("." + kind.split("/", maxsplit=1)[0])
    assert MESSAGES[kind].__doc__ is None or len(MESSAGES[kind].__doc__) > 10


def test_every_entry_of_a_journal_is_an_event_of_the_session() -> None:
    entries = {message for kind, message in MESSAGES.items() if kind.startswith("journal/")}
    assert set(get_args(journal.SessionEvent)) == entries


def unbounded(schema: Mapping[str, Any], where: str) -> Iterator[str]:
    match schema["type"]:
        case "default" | "nullable":
            yield from unbounded(schema["schema"], where)
        case "model":
            for name, field in fields_of(schema["cls"]).items():
                yield from unbounded(field, f"{where}.{name}")
        case "tuple":
            if not schema.get("max_length") or not schema.get("fail_fast"):
                yield where
            yield from unbounded(schema["items_schema"][0], f"{where}[]")
        case "dict":
            if not schema.get("max_length"):
                yield where
            yield from unbounded(schema["keys_schema"], f"{where} keys")
            yield from unbounded(schema["values_schema"], f"{where} values")
        case "str":
            if not schema.get("max_length") and not schema.get("pattern"):
                yield where
            if "+" in schema.get("pattern", "") or "*" in schema.get("pattern", ""):
                yield where
        case "bytes":
            if "max_length" not in schema:
                yield where
        case "int" | "float":
            if "ge" not in schema or "le" not in schema:
                yield where
        case "function-after":
            assert schema["function"]["function"].__self__.bytes_max > 0
        case "bool" | "literal" | "definition-ref":
            return
        case unexpected:
            raise AssertionError(unexpected)


@pytest.mark.parametrize("kind", sorted(MESSAGES))
def test_everything_has_a_bound_and_lists_stop_at_their_first_fault(kind: str) -> None:
    for name, schema in fields_of(MESSAGES[kind]).items():
        assert not list(unbounded(schema, name))
