"""What is committed below deploy/ is what the code makes, and is what it says it is."""

from __future__ import annotations

import json
import plistlib
import re
import subprocess
import sys
from pathlib import Path

from kowalski.node.http import metrics
from tests.architecture.source_tree import ROOT

DEPLOY = ROOT / "deploy"


def test_what_is_made_from_code_is_as_the_code_makes_it() -> None:
    checked = subprocess.run(
        [sys.executable, "scripts/deploy_files.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (checked.returncode, checked.stdout) == (0, ""), "make reference"


def test_grafana_asks_for_metrics_that_there_are() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "kowalski-mesh.json").read_text())
    asked = {
        re.sub("_(total|bucket)$", "", name)
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"kowalski_\w+", target["expr"])
    }
    source = Path(metrics.__file__).read_text()
    assert asked
    assert [name for name in sorted(asked) if f'"{name}"' not in source] == []


def test_the_agent_of_launchd_is_a_property_list() -> None:
    agent = plistlib.loads((DEPLOY / "launchd" / "org.kowalski.node.plist").read_bytes())
    assert agent["ProgramArguments"][-1] == "start"


def test_hadolint_finds_nothing_wrong_with_the_dockerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    checked = subprocess.run(
        [str(hadolint), "--no-color", str(DEPLOY / "Dockerfile")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (checked.returncode, checked.stdout) == (0, "")
