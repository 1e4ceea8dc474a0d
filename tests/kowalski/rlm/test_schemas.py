from __future__ import annotations

import json
import socket
import time

import pytest

from kowalski.rlm.schemas import Fits, Misfits, SchemaError, check_schema, fit

PERSON = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
)


@pytest.mark.parametrize(
    "answer",
    [
        '{"name": "Ada", "age": 36}',
        ' \n{"name":\t"Ada", "age": 36}\n',
        'Here it is:\n\n```json\n{"name": "Ada", "age": 36}\n```\n\nAnything else?',
        '```\n{"name": "Bob"}\n```\nNo, better:\n```\n{"name": "Ada", "age": 36}\n```',
        '````json\n{"name": "Ada", "age": 36}\n````',
    ],
)
def test_json_is_found_alone_or_in_the_last_fence_and_written_plainly(answer: str) -> None:
    assert fit(answer, PERSON) == Fits('{"name": "Ada", "age": 36}')


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ("forty-two", "it is no JSON: Expecting value"),
        ('{"name": "Ada"}', 'the value: "age" is a required property'),
        ('{"name": "Ada", "age": -1}', "/age: -1 is less than the minimum of 0"),
        ('{"name": 1, "age": "x"}', "/name: 1 is not of type"),
        ('{"name": "Ada", "age": NaN}', "NaN is no JSON"),
        ("[" * 100_000, "it is no JSON"),
    ],
)
def test_what_does_not_fit_is_said_with_its_place(answer: str, complaint: str) -> None:
    result = fit(answer, PERSON)
    assert isinstance(result, Misfits)
    assert complaint in result.complaint


def test_several_things_wrong_are_told_at_once_but_not_without_end() -> None:
    schema = '{"type": "array", "items": {"type": "integer"}}'
    result = fit(json.dumps(["x" * 10_000] * 1000), schema)
    assert isinstance(result, Misfits)
    assert result.complaint.count("is not of type") <= 5
    assert "/0:" in result.complaint
    assert result.complaint.endswith("and more")
    assert len(result.complaint) < 2000


@pytest.mark.parametrize(
    ("answer", "schema", "text"),
    [
        ("42", '{"type": "integer"}', "42"),
        ("forty-two", '{"type": "string"}', '"forty-two"'),
        ('"forty-two"', '{"type": "string"}', '"forty-two"'),
        ("42", '{"type": "string"}', '"42"'),
        ("küche", '{"type": "string"}', '"küche"'),
        ("anything", "true", '"anything"'),
        ("red", '{"enum": ["red", "green"]}', '"red"'),
    ],
)
def test_plain_text_is_a_string_where_one_is_wanted(answer: str, schema: str, text: str) -> None:
    assert fit(answer, schema) == Fits(text)


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ("{", "the schema is no JSON"),
        ("[]", "a schema is an object"),
        ('"integer"', "a schema is an object"),
        ('{"type": "whole"}', "whole"),
        ('{"pattern": "(?=a)b"}', "regex"),
        ('{"$ref": "#/$defs/missing"}', "missing"),
    ],
)
def test_what_is_no_schema_is_refused_before_anything_is_asked(schema: str, complaint: str) -> None:
    with pytest.raises(SchemaError, match=complaint):
        check_schema(schema)


def test_a_schema_cannot_make_us_look_anywhere() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        with pytest.raises(SchemaError):
            check_schema(json.dumps({"$ref": f"http://127.0.0.1:{port}/schema.json"}))
        with pytest.raises(SchemaError):
            check_schema('{"$ref": "file:///etc/hostname"}')
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_pattern_built_to_hurt_takes_no_time() -> None:
    began = time.process_time()
    assert isinstance(fit("a" * 50_000 + "!", '{"type": "string", "pattern": "^(a+)+$"}'), Misfits)
    assert time.process_time() - began < 5
