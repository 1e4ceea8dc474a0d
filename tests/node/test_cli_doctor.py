"""doctor: with a node, and on a machine without one."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from kowalski.node.cli import cli
from tests.node.scripted_node import Script, scripted_node


def test_the_doctor_prints_what_the_node_found(tmp_path: Path) -> None:
    done = {"verdict": "ok", "checks": [{"name": "clock", "verdict": "ok", "found": "fine"}]}
    with scripted_node(tmp_path, {"doctor": Script(done)}):
        shown = CliRunner().invoke(cli, ["doctor", "--data-dir", str(tmp_path)])
        in_json = CliRunner().invoke(cli, ["doctor", "--json", "--data-dir", str(tmp_path)])
    assert (shown.exit_code, shown.stdout) == (0, "ok    clock: fine\n")
    assert json.loads(in_json.stdout) == done


def test_the_doctor_fails_if_a_check_fails(tmp_path: Path) -> None:
    checks = [{"name": "clock", "verdict": "fail", "found": "1970", "cure": "set it"}]
    with scripted_node(tmp_path, {"doctor": Script({"checks": checks})}):
        ended = CliRunner().invoke(cli, ["doctor", "--data-dir", str(tmp_path)])
    assert ended.exit_code == 1
    assert "set it" in ended.stdout


def test_without_a_node_the_doctor_examines_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its multicast is to stay on loopback here.
    loopback = {
        name: addresses
        for name, addresses in psutil.net_if_addrs().items()
        if any(a.family == socket.AF_INET and a.address == "127.0.0.1" for a in addresses)
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: loopback)
    monkeypatch.setenv("KOWALSKI_P2P_PORT", "0")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    ended = CliRunner().invoke(cli, ["doctor", "--json", "--data-dir", str(tmp_path)])
    assert ended.exit_code == 0, ended.output
    names = {check["name"] for check in json.loads(ended.stdout)["checks"]}
    assert {"platform", "multicast", "p2p port", "sandbox", "model server", "event loop"} <= names
