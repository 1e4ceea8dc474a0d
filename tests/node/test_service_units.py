"""The files that make the system start a node."""

from __future__ import annotations

import os
import plistlib
import shutil
import subprocess
from pathlib import Path

import pytest

from kowalski.node.service_units import launchd_agent, systemd_unit

COMMAND = ("/usr/bin/env", "start", "--name", 'the "big" one, 100 % $HOME \\')
ENVIRONMENT = {"PATH": "/usr/bin", "KOWALSKI_NAME": "a b"}


@pytest.mark.parametrize("for_user", [True, False])
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path, for_user: bool) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    path = tmp_path / "kowalski-node.service"
    path.write_text(systemd_unit(COMMAND, ENVIRONMENT, for_user=for_user))
    which = "--user" if for_user else "--system"
    # Our unit's documentation is a manual page, which is not installed here.
    checked = subprocess.run(
        ["systemd-analyze", which, "--man=no", "verify", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    complaints = [line for line in checked.stderr.splitlines() if "kowalski-node" in line]
    assert (checked.returncode, complaints) == (0, [])


def test_words_stand_for_themselves() -> None:
    unit = systemd_unit(COMMAND, ENVIRONMENT, for_user=True)
    (start,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    assert start == ('ExecStart=/usr/bin/env start --name "the \\"big\\" one, 100 %% $$HOME \\\\"')
    assert 'Environment="KOWALSKI_NAME=a b"' in unit
    assert "RestartPreventExitStatus=2" in unit


def test_a_system_wide_unit_has_a_user_of_its_own() -> None:
    assert "DynamicUser=yes" in systemd_unit(COMMAND, {}, for_user=False)
    assert "DynamicUser" not in systemd_unit(COMMAND, {}, for_user=True)


def test_the_agent_is_a_property_list() -> None:
    agent = plistlib.loads(launchd_agent(COMMAND, {"A": "<&>"}, "/tmp/log").encode())
    assert agent["ProgramArguments"] == list(COMMAND)
    assert agent["EnvironmentVariables"] == {"A": "<&>"}
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
