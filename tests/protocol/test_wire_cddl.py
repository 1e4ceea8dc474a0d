"""`wire.cddl` and the models say the same, by the word of a validator that others wrote."""

from __future__ import annotations

import base64
import re
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from pydantic import BaseModel

from kowalski.protocol.codec import decode, encode, encode_plain
from kowalski.protocol.errors import RemoteProtocolError
from kowalski.protocol.join_line import PREFIX, JoinLine
from kowalski.protocol.limits import FRAME_BYTES_DEFAULT, WIRE_VERSION
from kowalski.protocol.messages import task
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.registry import MESSAGES
from tests.protocol import golden_frames, strategies, wire_schema
from tests.protocol.breakage import broken_bodies, fields_of_item
from tests.protocol.examples import EXAMPLES

KINDS = sorted(MESSAGES)


def body_of(kind: str) -> dict[str, Any]:
    body: dict[str, Any] = cbor2.loads(encode(EXAMPLES[kind]))[2]
    return body


def frame(kind: str, body: object) -> bytes:
    return cbor2.dumps([WIRE_VERSION, kind, body], canonical=True)


def is_message(data: bytes) -> bool:
    try:
        decode(data)
    except RemoteProtocolError:
        return False
    return True


# --- what is said -------------------------------------------------------------------------------


def test_it_describes_exactly_the_kinds_of_the_registry() -> None:
    assert wire_schema.kinds() == {kind: wire_schema.rule_of(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_golden_frame_is_valid(kind: str) -> None:
    assert wire_schema.is_valid("frame", golden_frames.read(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_we_may_say_is_valid(kind: str) -> None:
    @settings(max_examples=10, deadline=None)
    @given(strategies.messages(kind))
    def holds(message: Message) -> None:
        assert wire_schema.is_valid(wire_schema.rule_of(kind), encode(message))

    holds()


@pytest.mark.parametrize("kind", KINDS)
def test_it_lists_the_fields_of_the_models_with_their_bounds_and_defaults(kind: str) -> None:
    differences = list(_differences(MESSAGES[kind], wire_schema.rule_of(kind)))
    assert not differences, "\n".join(differences)


def _differences(model: type[BaseModel], rule: str) -> list[str]:
    lines = wire_schema.maps()[rule]
    if set(lines) != set(model.model_fields):
        return [f"{rule}: {sorted(set(lines) ^ set(model.model_fields))}"]
    found = []
    for name, schema in strategies.fields_of(model).items():
        field, line = model.model_fields[name], lines[name]
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            default = default.model_dump(exclude_defaults=True)
        if isinstance(default, tuple):
            default = list(default)
        if (line.is_optional, line.default) != (not field.is_required(), default):
            found.append(f"{rule}.{name}: {line}, but {field}")
        inner = schema
        if schema["type"] == "tuple":
            bound, inner_rule = _array(line.type)
            inner = fields_of_item(schema)
            if bound != schema["max_length"]:
                found.append(f"{rule}.{name}: {line.type}, but {schema['max_length']}")
        else:
            inner_rule = line.type
        if inner["type"] == "model":
            found += _differences(inner["cls"], inner_rule)
    return found


def _array(type_: str) -> tuple[int, str]:
    found = re.fullmatch(r"\[\*(\d+) ([a-z-]+)\]", type_)
    assert found, type_
    return int(found[1]), found[2]


@pytest.mark.parametrize("kind", KINDS)
def test_it_tells_the_greatest_size_of_a_frame(kind: str) -> None:
    """In the comment above the rule, unless it is the usual one. A journal says it once for all."""
    found = re.search(
        rf"((?:^;.*\n)*)^{wire_schema.rule_of(kind)} = ", wire_schema.text(), flags=re.MULTILINE
    )
    assert found
    told = re.search(r"\b[Uu]p to\s(?:; )?(\d+) bytes", found[1])
    size = MESSAGES[kind].FRAME_BYTES_MAX
    if kind.startswith("journal/"):
        assert size in (FRAME_BYTES_DEFAULT, 1_040_384)
    else:
        assert (int(told[1]) if told else FRAME_BYTES_DEFAULT) == size


# --- what is not said ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_broken_is_refused_by_both(kind: str) -> None:
    rule = wire_schema.rule_of(kind)
    assert wire_schema.is_valid(rule, frame(kind, body_of(kind)))
    passed = [
        f"{how}: {'the models' if is_message(data) else 'wire.cddl'} would take it"
        for how, body in broken_bodies(body_of(kind), MESSAGES[kind])
        for data in [frame(kind, body)]
        if is_message(data) or wire_schema.is_valid(rule, data)
    ]
    assert not passed, "\n".join(passed)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_newer_peer_adds_is_taken_by_both(kind: str) -> None:
    data = frame(kind, body_of(kind) | {"from_the_future": [1, {"a": b"b"}]})
    assert decode(data) == EXAMPLES[kind]
    assert wire_schema.is_valid(wire_schema.rule_of(kind), data)


@pytest.mark.parametrize("kind", KINDS)
def test_optional_fields_are_optional_for_both(kind: str) -> None:
    required = [n for n, field in MESSAGES[kind].model_fields.items() if field.is_required()]
    data = frame(kind, {name: body_of(kind)[name] for name in required})
    assert is_message(data)
    assert wire_schema.is_valid(wire_schema.rule_of(kind), data)


@pytest.mark.parametrize(
    "data",
    [
        [2, "base/cancel", {}],
        [0, "base/cancel", {}],
        [1, "base/nonsense", {}],
        [1, "base/cancel"],
        [1, "base/cancel", {}, {}],
        ["1", "base/cancel", {}],
        {"kind": "base/cancel"},
        [1, "base/refused", {}],
        [1, "task/settle", {"task": "t", "term": 0}],
    ],
)
def test_what_is_no_frame_is_refused_by_both(data: object) -> None:
    assert not wire_schema.is_valid("frame", cbor2.dumps(data))
    assert not is_message(cbor2.dumps(data))


def test_an_entry_holds_a_frame_of_the_journal_and_nothing_else() -> None:
    entry = EXAMPLES["task/entry"]
    assert isinstance(entry, task.EntryOffered)
    other = entry.entry.model_copy(update={"body": encode(EXAMPLES["base/cancel"])})
    assert not wire_schema.is_valid("frame", encode(entry.model_copy(update={"entry": other})))


# --- the join line ------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(strategies.join_lines())
def test_a_join_line_holds_what_is_described(line: JoinLine) -> None:
    packed = line.render().removeprefix(PREFIX)
    data = base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))
    assert wire_schema.is_valid("join-line", data[:-4])
    *fields, _roles = cbor2.loads(data[:-4])
    assert not wire_schema.is_valid("join-line", encode_plain(fields))
