"""What is said to sandbox-exec. It was written to its documentation; no machine here can run it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kowalski.node.repl.limits import SessionLimits
from kowalski.node.repl.sandbox import Folders
from kowalski.node.repl.seatbelt import SeatbeltSandbox

SANDBOX = SeatbeltSandbox("/opt/py/bin/python3", "/opt/py/bin:/usr/bin", Path("/opt/py"))


def test_everything_is_denied_first_and_the_network_never_allowed() -> None:
    rules = SANDBOX.profile().splitlines()
    assert rules[:2] == ["(version 1)", "(deny default)"]
    assert not [rule for rule in rules if "network" in rule or "mach" in rule or "iokit" in rule]
    assert SANDBOX.profile().count("(") == SANDBOX.profile().count(")")


def test_a_session_writes_to_its_own_folders_only(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "inputs", tmp_path / "job", tmp_path / "tmp")
    launch = SANDBOX.launch(("python",), limits=SessionLimits(), folders=folders, slot=0)
    assert launch.argv[:2] == ("/usr/bin/sandbox-exec", "-p")
    assert launch.argv[-1] == "python"
    assert f"JOB={folders.job.resolve()}" in launch.argv
    assert launch.environment["HOME"] == str(folders.job)
    writing = [rule for rule in SANDBOX.profile().split("(allow ") if "file-write*" in rule]
    assert len(writing) == 1
    assert writing[0].count("subpath") == 2


def test_a_path_cannot_smuggle_a_rule() -> None:
    evil = SeatbeltSandbox("p", "", Path("/"), shown=(Path('/x")) (allow network*) (("'),))
    with pytest.raises(ValueError, match="cannot be named"):
        evil.profile()
