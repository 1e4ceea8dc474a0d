from __future__ import annotations

import os
import subprocess
from pathlib import Path

from kowalski.node.repl.kernel_source import remove_leftovers


def test_folders_of_a_killed_node_are_removed_and_those_of_a_living_one_kept(
    tmp_path: Path,
) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    for name in (f"kowalski-session-{ended.pid}-a", f"kowalski-session-{os.getpid()}-b", "other"):
        (tmp_path / name / "job").mkdir(parents=True)
    remove_leftovers(tmp_path)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [f"kowalski-session-{os.getpid()}-b", "other"]
