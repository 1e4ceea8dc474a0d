from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from kowalski.node.repl.kernel_images import code_of, codes_of, memory_file, program_of
from kowalski.node.repl.languages import LANGUAGES


def test_a_program_is_what_the_interpreter_runs_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "image.pyc").write_bytes(program_of(compile("print('ran')", "<test>", "exec")))
    assert subprocess.check_output([sys.executable, tmp_path / "image.pyc"]) == b"ran\n"


def test_parts_make_one_program_named_by_the_last() -> None:
    code = code_of(("channel.py", "limiting.py"))
    assert code.co_filename == "<limiting.py>"
    names = {one.co_name for one in code.co_consts if hasattr(one, "co_name")}
    assert {"Channel", "limit_self"} <= names


def test_kernels_have_names_of_their_own() -> None:
    codes = codes_of(language.kernel for language in LANGUAGES.values())
    assert len(codes) == len({language.kernel for language in LANGUAGES.values()})


def test_a_memory_file_is_read_from_its_beginning_by_whoever_it_is_passed_to() -> None:
    fd = memory_file(b"content")
    try:
        read = ["cat", f"/dev/fd/{fd}"]
        assert subprocess.check_output(read, pass_fds=(fd,)) == b"content"
        assert os.get_inheritable(fd) is False
    finally:
        os.close(fd)
