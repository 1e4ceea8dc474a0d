"""peers, status and config show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kowalski.node.cli import cli
from tests.node.scripted_node import Script, scripted_node


def invoke(tmp_path: Path, scripts: dict[str, Script], *args: str) -> Result:
    with scripted_node(tmp_path, scripts):
        return CliRunner().invoke(cli, [*args, "--data-dir", str(tmp_path)])


@pytest.mark.parametrize(
    ("command", "verb", "done", "part"),
    [
        (["peers"], "peers", {"peers": [{"name": "desk", "state": "alive"}]}, "desk  alive"),
        (["status"], "status", {"name": "desk", "uptime_s": 3}, "uptime_s"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_view_asks_its_verb_and_prints_for_people_and_programs(
    tmp_path: Path, command: list[str], verb: str, done: dict[str, object], part: str
) -> None:
    shown = invoke(tmp_path, {verb: Script(done)}, *command)
    assert shown.exit_code == 0, shown.output
    assert part.removesuffix("_s") in shown.stdout
    in_json = invoke(tmp_path, {verb: Script(done)}, *command, "--json")
    assert json.loads(in_json.stdout) == done


def test_pending_peers_are_the_strangers(tmp_path: Path) -> None:
    rows = [
        {"name": "desk", "state": "member"},
        {"name": "away", "state": "absent"},
        {"name": "new", "state": "connected"},
        {"name": "lost", "state": "refused", "why_not": "revoked"},
    ]
    ended = invoke(tmp_path, {"peers": Script({"peers": rows})}, "peers", "--pending")
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["NAME", "new", "lost"]
    assert "revoked" in ended.stdout


def test_config_show_tells_where_each_setting_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('name = "desk"\napi_key = "hush"\n')
    runner = CliRunner(env={"KOWALSKI_HTTP_PORT": "99"})
    args = ["config", "show", "--config", str(file), "--data-dir", str(tmp_path / "data")]
    shown = runner.invoke(cli, args)
    assert shown.exit_code == 0
    rows = {line.split()[0]: line.split()[1:] for line in shown.stdout.splitlines()}
    assert rows["name"] == ["desk", str(file)]
    assert rows["http_port"] == ["99", "KOWALSKI_HTTP_PORT"]
    assert rows["data_dir"] == [str(tmp_path / "data"), "--data-dir"]
    assert rows["p2p_port"] == ["4170", "default"]
    assert "hush" not in shown.stdout
    in_json = json.loads(runner.invoke(cli, [*args, "--json"]).stdout)["settings"]
    assert in_json["http_port"] == {"value": 99, "source": "KOWALSKI_HTTP_PORT"}


def test_config_show_names_the_key_that_it_does_not_know(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("p2p_prot = 1\n")
    ended = CliRunner().invoke(cli, ["config", "show", "--config", str(file)])
    assert ended.exit_code == 2
    assert "did you mean 'p2p_port'?" in ended.stderr
