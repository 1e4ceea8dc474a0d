from __future__ import annotations

import marshal
import subprocess
import sys

from kowalski.node.repl.kernel_images import code_of
from kowalski.node.repl.limits import CellLimits, Limits, SessionLimits


def test_a_language_has_its_own_limits_or_everybodys() -> None:
    roomy = SessionLimits(processes=128)
    limits = Limits(by_language={"java": roomy})
    assert limits.of("java") is roomy
    assert limits.of("python") is limits.session


def test_a_cell_is_killed_only_for_far_more_output_than_is_kept() -> None:
    limits = CellLimits()
    assert limits.output_bytes_max == 4 * limits.output_bytes_kept


def test_limits_reach_the_program() -> None:
    limits = SessionLimits(open_files=99, cpu_s=7, file_bytes=4096)
    code = code_of(("channel.py", "limiting.py"))
    program = (
        "import marshal, sys, os\n"
        f"exec(marshal.loads({marshal.dumps(code)!r}))\n"
        f"limit_self({limits.rlimits()!r})\n"
        "os.execvp('sh', ['sh', '-c', 'ulimit -n; ulimit -t; ulimit -f; ulimit -c'])"
    )
    told = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert told.split() == ["99", "7", "8", "0"]


def test_a_session_may_use_the_processor_for_as_long_as_it_lives() -> None:
    assert "cpu" not in SessionLimits().rlimits()
