from __future__ import annotations

import os
from pathlib import Path

from kowalski.node.repl.sandbox import inside_environment, interpreter_prefix


def test_the_interpreter_is_a_real_program_below_its_prefix() -> None:
    prefix, program = interpreter_prefix()
    assert Path(program).is_relative_to(prefix)
    assert not Path(program).is_symlink()
    assert os.access(program, os.X_OK)


def test_nothing_of_our_environment_goes_inside() -> None:
    inside = inside_environment(home="/job", temporary="/tmp", path="/bin")
    assert inside["HOME"] == "/job"
    assert not {"SSH_AUTH_SOCK", "PYTHONPATH", "LD_PRELOAD"} & inside.keys()
