"""service: install, uninstall and status, with a systemctl that writes down what it is told."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kowalski.node.cli import cli

SYSTEMCTL = """#!/bin/sh
echo "$@" >>"$(dirname "$0")/told"
case "$*" in
*is-active*) [ -e "$(dirname "$0")/active" ] ;;
*restart*) [ ! -e "$(dirname "$0")/broken" ] || { echo "no bus" >&2; exit 1; } ;;
esac
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    programs = tmp_path / "bin"
    programs.mkdir()
    systemctl = programs / "systemctl"
    systemctl.write_text(SYSTEMCTL)
    systemctl.chmod(systemctl.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("KOWALSKI_NAME", "minipc")
    monkeypatch.setenv("KOWALSKI_JOIN", "kw1:secret")
    monkeypatch.setattr("platform.system", lambda: "Linux")
    return tmp_path


def invoke(*args: str) -> Result:
    return CliRunner().invoke(cli, ["service", *args])


def told(home: Path) -> list[str]:
    path = home / "bin" / "told"
    return path.read_text().splitlines() if path.exists() else []


def unit_path(home: Path) -> Path:
    return home / "config/systemd/user/kowalski-node.service"


def test_it_is_installed_started_looked_at_and_removed(home: Path) -> None:
    data = home / "data"
    assert invoke("status").exit_code == 3
    ended = invoke("install", "--data-dir", str(data))
    assert ended.exit_code == 0, ended.output
    unit = unit_path(home).read_text()
    assert f"start --data-dir {data}" in unit
    assert "Environment=KOWALSKI_NAME=minipc" in unit
    assert "secret" not in unit
    assert told(home) == [
        "--user daemon-reload",
        "--user enable kowalski-node.service",
        "--user restart kowalski-node.service",
    ]
    (home / "bin" / "active").touch()
    ended = invoke("status", "--json")
    assert ended.exit_code == 0
    assert json.loads(ended.stdout)["running"] is True
    assert invoke("uninstall").exit_code == 0
    assert not unit_path(home).exists()
    assert "--user disable --now kowalski-node.service" in told(home)
    assert "there was none" in invoke("uninstall").stderr


def test_it_can_be_looked_at_first(home: Path) -> None:
    ended = invoke("install", "--print")
    assert ended.exit_code == 0
    assert ended.stdout.startswith("[Unit]")
    assert not unit_path(home).exists()
    assert told(home) == []


def test_a_systemd_that_cannot_is_told_in_its_words(home: Path) -> None:
    (home / "bin" / "broken").touch()
    ended = invoke("install")
    assert ended.exit_code == 2
    assert "restart kowalski-node.service ended with 1: no bus" in ended.stderr


def test_a_system_that_has_neither_is_told_what_to_do(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Plan9")
    ended = invoke("install")
    assert ended.exit_code == 2
    assert "kowalski-node start" in ended.stderr


def test_on_a_mac_it_is_launchds(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    ended = invoke("install", "--print")
    assert ended.exit_code == 0
    assert "<key>Label</key><string>org.kowalski.node</string>" in ended.stdout
