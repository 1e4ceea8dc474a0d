"""start: the operator's mistakes, before a node exists. What it starts is tested with the node."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from kowalski.node.cli import cli
from kowalski.node.config import NodeConfig


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["--p2p-port", "70000"], "--p2p-port"),
        (["--roles", "cook"], "--roles"),
        (["--peer", "/ip4/127.0.0.1/tcp/1"], "--peer"),
        (["--backend", "ftp://h"], "--backend"),
        (["--name", ""], "--name"),
        (["--repl-slots", "0"], "--repl-slots"),
        (["--log-level", "loud"], "--log-level"),
        (["--config", "/nonexistent/config.toml"], "no such file"),
        (["--p2p-prot", "1"], "--p2p-port"),
    ],
    ids=str,
)
def test_a_mistake_of_the_operator_is_told_and_ends_with_2(
    tmp_path: Path, args: list[str], part: str
) -> None:
    ended = CliRunner().invoke(cli, ["start", "--data-dir", str(tmp_path / "data"), *args])
    assert ended.exit_code == 2, ended.output
    assert part in ended.stderr
    assert ended.stdout == ""
    assert not (tmp_path / "data").exists()


def test_every_setting_has_its_flag() -> None:
    start = cli.get_command(cli.make_context("kowalski-node", ["version"]), "start")
    assert start is not None
    without_flag = {"ollama_host", "openai_base_url", "api_key"}  # secrets and others' variables
    names = {param.name for param in start.params}
    assert set(NodeConfig.model_fields) - without_flag <= names
