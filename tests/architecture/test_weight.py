"""The command line answers within a third of a second, so it loads none of the heavy libraries."""

import subprocess
import sys

import pytest

HEAVY = frozenset(
    {
        "libp2p",
        "trio",
        "pydantic",
        "zeroconf",
        "h11",
        "httptools",
        "structlog",
        "psutil",
        "xllamacpp",
    }
)


def heavy_ones_loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sorted(sys.modules))"
    finished = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    return HEAVY & set(finished.stdout.split())


@pytest.mark.parametrize(
    "module", ["kowalski", "kowalski.node.cli", "kowalski.node.control_client"]
)
def test_talking_to_a_running_node_loads_nothing_heavy(module: str) -> None:
    assert heavy_ones_loaded_by(f"import {module}") == set()


def test_a_heavy_import_is_found() -> None:
    assert heavy_ones_loaded_by("import trio, psutil") == {"trio", "psutil"}
