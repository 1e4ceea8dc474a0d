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


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a node; its multicast is to stay on loopback here."""
    loopback = {
        name: addresses
        for name, addresses in psutil.net_if_addrs().items()
        if any(a.family == socket.AF_INET and a.address == "127.0.0.1" for a in addresses)
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: loopback)
    monkeypatch.setenv("KOWALSKI_P2P_PORT", "0")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def examined(tmp_path: Path, *, exit_code: int = 0) -> list[dict[str, str]]:
    ended = CliRunner().invoke(cli, ["doctor", "--json", "--data-dir", str(tmp_path)])
    assert ended.exit_code == exit_code, ended.output
    checks: list[dict[str, str]] = json.loads(ended.stdout)["checks"]
    return checks


@pytest.mark.usefixtures("alone")
def test_without_a_node_the_doctor_examines_the_machine(tmp_path: Path) -> None:
    names = {check["name"] for check in examined(tmp_path)}
    assert {"platform", "multicast", "p2p port", "sandbox", "model server", "event loop"} <= names


@pytest.mark.usefixtures("alone")
def test_without_a_node_model_files_are_looked_into_and_not_knocked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, missing = tmp_path / "broken.gguf", tmp_path / "missing.gguf"
    broken.write_bytes(b"no model at all")
    monkeypatch.setenv("KOWALSKI_BACKENDS", f"{broken}?slots=2,{missing}")
    found = [one for one in examined(tmp_path, exit_code=1) if one["name"] == "model server"]
    told = [one["found"] for one in found if "gguf" in one["found"]]
    assert [one["verdict"] for one in found if "gguf" in one["found"]] == ["fail", "fail"]
    assert told[0].startswith(f"{broken}: is no GGUF file")
    assert told[1] == f"{missing}: No such file or directory"
    assert "http" not in "".join(told)
