from __future__ import annotations

import os
import subprocess
from pathlib import Path

from kowalski.node.repl.limits import SessionLimits
from kowalski.node.repl.sandbox import inside_environment, interpreter_prefix, rlimit_command


def test_the_interpreter_is_a_real_program_below_its_prefix() -> None:
    prefix, program = interpreter_prefix()
    assert Path(program).is_relative_to(prefix)
    assert not Path(program).is_symlink()
    assert os.access(program, os.X_OK)


def test_limits_reach_the_program() -> None:
    limits = SessionLimits(open_files=99, cpu_s=7, file_bytes=4096)
    program = ["sh", "-c", "ulimit -n; ulimit -t; ulimit -f; ulimit -c"]
    told = subprocess.check_output([*rlimit_command(limits), *program], text=True)
    assert told.split() == ["99", "7", "8", "0"]


def test_a_session_may_use_the_processor_for_as_long_as_it_lives() -> None:
    assert "--cpu=unlimited" in rlimit_command(SessionLimits())


def test_nothing_of_our_environment_goes_inside() -> None:
    inside = inside_environment(home="/job", temporary="/tmp", path="/bin")
    assert inside["HOME"] == "/job"
    assert not {"SSH_AUTH_SOCK", "PYTHONPATH", "LD_PRELOAD"} & inside.keys()
