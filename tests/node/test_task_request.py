"""What is asked on this device, as the spec that the mesh keeps."""

from __future__ import annotations

import pytest

from kowalski.node.control_messages import SubmitRequest, parse
from kowalski.node.task_request import check, spec_of
from kowalski.protocol.errors import ConfigError
from kowalski.protocol.messages.task import Asking, Budget, Quality, Shape, TaskSpec


def request(**fields: object) -> SubmitRequest:
    return parse(SubmitRequest, {"prompt": "q", **fields})


def test_what_is_not_said_is_the_specs_own_default() -> None:
    plain = TaskSpec(prompt="q", max_iterations=30, timeout_s=3600.0)
    assert spec_of(request(), ()) == plain
    assert spec_of(request(mode="blocks"), ()).max_iterations == 5


def test_every_field_of_the_loop_reaches_the_spec() -> None:
    spec = spec_of(
        request(
            devices="local",
            seed=7,
            cell_timeout_s=2.0,
            calls_max=9,
            tokens_max=1000,
            depth=0,
            quality=0.0,
            quality_patience=2,
            quality_model="judge",
            json_schema='{"type": "integer"}',
            schema_tries=5,
            drafts=3,
            sub_model="small",
            temperature=0.5,
            reply_tokens=100,
            answers_once=False,
            window_tokens=4096,
            output_chars=500,
        ),
        (),
    )
    assert (spec.devices, spec.seed, spec.cell_timeout_s) == ("local", 7, 2.0)
    assert spec.budget == Budget(calls=9, tokens=1000, depth=0)
    assert spec.quality == Quality(threshold=0.0, patience=2, model="judge")
    assert spec.shape == Shape(json_schema='{"type": "integer"}', tries=5)
    assert spec.asking == Asking(
        drafts=3, sub_model="small", temperature=0.5, reply_tokens=100, answers_once=False
    )
    assert (spec.window_tokens, spec.output_chars) == (4096, 500)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": "x" * 300_000}, "a prompt of 300000 bytes"),
        ({"json_schema": "{"}, "the schema is no JSON"),
        ({"json_schema": '{"type": "dance"}'}, "json_schema: "),
        ({"json_schema": '"' + "x" * 30_000 + '"'}, "a schema of 30002 bytes"),
        ({"context": [{"name": "a", "path": "/x"}, {"name": "a", "path": "/y"}]}, "are named a"),
        ({"context": [{"name": "n" * 200, "path": "/x"}]}, "a name of over 128"),
    ],
)
def test_what_cannot_be_a_spec_is_told(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check(request(**fields))
