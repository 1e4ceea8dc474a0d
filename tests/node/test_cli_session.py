"""What commands share: durations, texts, errors and their exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kowalski.node import cli_session
from kowalski.node.cli import cli
from kowalski.protocol.errors import ConfigError, RequestFailedError, RequestRefusedError
from tests.node.scripted_node import Script, scripted_node


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5s", 1.5), ("10m", 600), ("2 h", 7200), (" 7d ", 604_800)],
)
def test_a_duration_is_a_number_with_or_without_a_unit(text: str, seconds: float) -> None:
    assert cli_session.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-5", "1w", "m", "1e9", "nan", "inf", "9" * 30])
def test_what_is_no_duration_is_a_usage_error(text: str) -> None:
    with pytest.raises(click.BadParameter):
        cli_session.seconds(text)


@pytest.mark.parametrize("text", ["nan", "NaN", "-nan", "inf", "2", "-0.1", "half"])
def test_what_is_no_number_within_bounds_is_a_usage_error(text: str) -> None:
    range_of = cli_session.FiniteRange(0, 1)
    assert range_of.convert("0.5", None, None) == 0.5
    with pytest.raises(click.BadParameter):
        range_of.convert(text, None, None)


def commands(group: click.Group) -> Iterator[click.Command]:
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from commands(command)
        else:
            yield command


def test_no_command_takes_a_number_that_is_none() -> None:
    """click's own range lets `nan` through, and so does its `float`."""
    takes_nan = [
        (command.name, parameter.name)
        for command in commands(cli)
        for parameter in command.params
        if isinstance(parameter.type, click.types.FloatParamType)
        and not isinstance(parameter.type, cli_session.FiniteRange)
    ]
    assert takes_nan == []


def test_a_text_comes_from_the_argument_a_file_or_stdin(tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("from the file")
    assert cli_session.text_of("typed", None, what="prompt") == "typed"
    assert cli_session.text_of(None, file, what="prompt") == "from the file"
    with CliRunner().isolation(input="from stdin"):
        assert cli_session.text_of("-", None, what="prompt") == "from stdin"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "empty"),
        (b" \n\t", "empty"),
        (b"abc\xff", "not UTF-8 at byte 3"),
        (b"x" * (1 << 20), "larger than"),
    ],
)
def test_a_text_that_will_not_do_is_a_usage_error(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes(content)
    with pytest.raises(click.UsageError, match=complaint):
        cli_session.text_of(None, file, what="prompt")


def test_neither_or_both_or_a_missing_file_are_usage_errors(tmp_path: Path) -> None:
    for argument, file in ((None, None), ("a", tmp_path), (None, tmp_path / "none")):
        with pytest.raises(click.UsageError):
            cli_session.text_of(argument, file, what="prompt")


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (RequestFailedError("timeout", "too slow"), 1),
        (ConfigError("no such language"), 2),
        (RequestRefusedError("not_allowed"), 4),
        (RequestRefusedError("no_peer", "nobody runs cobol", 2.0), 5),
    ],
)
@pytest.mark.parametrize("as_json", [True, False])
def test_the_error_of_a_node_decides_how_a_command_ends(
    tmp_path: Path, error: Exception, exit_code: int, *, as_json: bool
) -> None:
    with scripted_node(tmp_path, {"status": Script(error=error)}):
        flags = ["--json"] if as_json else []
        ended = CliRunner().invoke(cli, ["status", "--data-dir", str(tmp_path), *flags])
    assert ended.exit_code == exit_code
    assert ended.stderr.startswith(f"kowalski-node: {error}\n")
    if as_json:
        told = json.loads(ended.stdout)["error"]
        assert (told["message"], told["exit_code"]) == (str(error), exit_code)
    else:
        assert ended.stdout == ""


def test_a_mistake_in_the_config_file_is_a_usage_error(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("data_dir = ")
    ended = CliRunner().invoke(cli, ["status", "--config", str(file)])
    assert ended.exit_code == 2
    assert "config.toml: not TOML" in ended.stderr


def test_the_data_directory_may_come_from_the_environment_or_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'data_dir = "{tmp_path}"\n')
    with scripted_node(tmp_path, {"status": Script({"name": "desk"})}):
        by_file = CliRunner().invoke(cli, ["status", "--config", str(file)])
        environ = {"KOWALSKI_DATA_DIR": str(tmp_path)}
        by_variable = CliRunner(env=environ).invoke(cli, ["status"])
    assert by_file.stdout == by_variable.stdout == "name  desk\n"


def test_a_text_with_half_a_surrogate_pair_is_printed_somehow(tmp_path: Path) -> None:
    with scripted_node(tmp_path, {"status": Script({"name": "a\ud800b"})}):
        ended = CliRunner().invoke(cli, ["status", "--data-dir", str(tmp_path)])
    assert (ended.exit_code, ended.stdout) == (0, "name  a?b\n")
