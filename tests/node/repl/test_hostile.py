"""The same hostile cells against every tier, as root and as an ordinary user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kowalski.node.repl.detection import tiers
from tests.node.repl.hostile_cells import HOSTILE_CELLS

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[3]
ORDINARY = ("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "--inh-caps=-all")
TIERS = tuple(name for name, _ in tiers() if name != "seatbelt")


def run_hostile(tier: str, *, as_root: bool) -> dict[str, object]:
    """What `hostile_run` reports; a skip where the tier cannot be had, with the reason."""
    is_root = os.geteuid() == 0
    if as_root and not is_root:
        pytest.skip("only root can try what happens as root")
    command, environment = [sys.executable], dict(os.environ)
    if is_root and not as_root:
        # The environment may lie where an ordinary user cannot go, so: the system's python.
        packages = next(path for path in sys.path if path.endswith("site-packages"))
        command = [*ORDINARY, "/usr/bin/python3"]
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{packages}"}
    ended = subprocess.run(
        [*command, "-m", "tests.node.repl.hostile_run", tier],
        cwd=ROOT,
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if not as_root and ("ModuleNotFoundError" in ended.stderr or "ImportError" in ended.stderr):
        pytest.skip("the system's python cannot import this environment's packages")
    assert ended.returncode == 0, ended.stderr[-3000:]
    report: dict[str, object] = json.loads(ended.stdout.splitlines()[-1])
    if "missing" in report:
        pytest.skip(f"no tier {tier} here: {report['missing']}")
    return report


@pytest.mark.parametrize("as_root", [True, False], ids=["root", "user"])
@pytest.mark.parametrize("tier", TIERS)
def test_no_cell_gets_out_stays_or_takes_more_than_its_share(tier: str, *, as_root: bool) -> None:
    report = run_hostile(tier, as_root=as_root)
    assert report["complaints"] == []
    assert int(str(report["cells"])) >= 60
    assert float(str(report["lag_s"])) < 1
    assert float(str(report["neighbour_s"])) < 60


def test_every_hostile_cell_has_a_name_of_its_own_and_there_are_enough() -> None:
    names = [hostile.name for hostile in HOSTILE_CELLS]
    assert len(set(names)) == len(names) >= 40
