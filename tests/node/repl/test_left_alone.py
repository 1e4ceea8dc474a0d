"""Nothing survives the node, however it dies."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kowalski.node.repl.detection import tiers
from kowalski.node.repl.kernel_source import remove_leftovers
from tests.node.repl.rooms import processes_with
from tests.node.repl.test_hostile import ROOT

pytestmark = [pytest.mark.real]

TIERS = tuple(name for name, _ in tiers() if name != "seatbelt")
GONE_S_MAX = 60.0


@pytest.mark.parametrize("tier", TIERS)
def test_a_node_that_is_killed_takes_even_daemons_of_its_sessions_along(
    tier: str, tmp_path: Path
) -> None:
    seconds = f"{600 + secrets.randbelow(1 << 20)}.25"
    command = [sys.executable, "-m", "tests.node.repl.left_alone", tier, seconds, str(tmp_path)]
    node = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert node.stdout is not None
        said = node.stdout.readline().strip()
        if said.startswith("missing"):
            pytest.skip(f"no tier {tier} here: {said}")
        assert said == "ok"
        # The node has it on its command line as well.
        assert len(processes_with(seconds)) == 2
    finally:
        node.kill()
        node.communicate()
    give_up_at = time.monotonic() + GONE_S_MAX
    while processes_with(seconds) and time.monotonic() < give_up_at:
        time.sleep(0.02)
    assert processes_with(seconds) == []
    remove_leftovers(tmp_path)  # as the next start does
    assert list(tmp_path.iterdir()) == []
