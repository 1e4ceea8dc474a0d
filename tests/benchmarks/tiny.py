"""A scenario for tests: what it is told to do, in a moment."""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import report, report_failure
from benchmarks.scenarios import Scenario


@dataclass(frozen=True, slots=True)
class Tiny(Scenario):
    """This one, with some of its arguments."""

    @property
    def module(self) -> str:
        return "tests.benchmarks.tiny"


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--peer", action="append", default=[])
    arguments.add_argument("--fails", action="store_true")
    arguments.add_argument("--hangs", type=Path, help="writes the id of a child there")
    options = arguments.parse_args()
    report("a thing (ms)", [1.0, 3.0, 2.0], cpu_ms=0.5)
    for peer in options.peer:
        report("a thing (ms)", [5.0], peer=peer.partition("=")[0])
    report_failure("broken", "it does not\nanswer")
    if options.fails:
        sys.exit("it went wrong")
    if options.hangs:
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        try:
            options.hangs.write_text(str(child.pid))
            time.sleep(600)
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            child.wait()


if __name__ == "__main__":
    main()
