"""What the options of `submit` ask of the node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from kowalski.node.cli_loop_options import loop_options, loop_request
from kowalski.node.control_messages import SubmitRequest, parse


def asked(*arguments: str) -> dict[str, Any]:
    """What a command with these options would ask; raises what click does."""
    found: list[dict[str, Any]] = []

    @click.command()
    @loop_options
    def command(**options: object) -> None:
        found.append(loop_request(options))

    CliRunner().invoke(command, arguments, catch_exceptions=False, standalone_mode=False)
    return found[0]


def test_what_is_not_said_is_left_to_the_node() -> None:
    assert asked() == {}


def test_every_option_becomes_a_field_that_the_node_takes(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "integer"}')
    arguments = "--calls 9 --tokens 100 --depth 2 --quality 0.8 --drafts 3 --sub-model small"
    arguments += " --temperature 0.5 --seed 7 --cell-timeout 2m --ask-again --devices local"
    request = asked(*arguments.split(), "--schema", str(schema))
    spec = parse(SubmitRequest, {"prompt": "q", **request})
    assert (spec.calls_max, spec.tokens_max, spec.depth, spec.quality) == (9, 100, 2, 0.8)
    assert (spec.drafts, spec.sub_model, spec.temperature, spec.seed) == (3, "small", 0.5, 7)
    assert (spec.cell_timeout_s, spec.answers_once, spec.devices) == (120.0, False, "local")
    assert spec.json_schema == '{"type": "integer"}'


@pytest.mark.parametrize("wrong", [("--depth", "9"), ("--quality", "2"), ("--devices", "moon")])
def test_a_wrong_value_is_refused_before_the_node_is_asked(wrong: tuple[str, str]) -> None:
    with pytest.raises(click.UsageError):
        asked(*wrong)
