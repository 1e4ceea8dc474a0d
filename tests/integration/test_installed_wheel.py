"""The wheel, installed as a user would: the program starts, and has its kernels and prompts."""

from __future__ import annotations

import subprocess
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from kowalski import __version__
from tests.architecture.distributions import build_wheel
from tests.integration.cluster import (
    ROOT,
    START_S,
    Cluster,
    clean_environment,
    open_cluster,
    open_model_server,
)

pytestmark = pytest.mark.real

ANSWER = (
    "```python\nanswer['content'] = llm_query('ECHO: from the wheel')\nanswer['ready'] = True\n```"
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it; the dependencies are borrowed from this one."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = build_wheel(ROOT, folder)
    environment = folder / "venv"
    venv.create(environment, symlinks=True, with_pip=True)
    quiet = ("--quiet", "--disable-pip-version-check")
    subprocess.run(
        [environment / "bin/python", "-m", "pip", *quiet, "install", "--no-deps", wheel],
        check=True,
        timeout=60,
        env=clean_environment(folder / "home"),
        cwd=folder,
    )
    (packages,) = environment.glob("lib/python*/site-packages")
    # A folder named here is looked into after its own, and its .pth files are not read: the
    # sources that are installed there as editable stay out.
    (packages / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"])
    return environment


@pytest.fixture
def cluster(installed: Path, tmp_path: Path) -> Iterator[Cluster]:
    with open_cluster(tmp_path, str(installed / "bin/kowalski-node")) as cluster:
        yield cluster


def test_the_installed_program_is_the_wheels_and_tells_its_version(
    installed: Path, cluster: Cluster
) -> None:
    done = cluster.cli(None, "version", "--json")
    assert done.exit_code == 0, done
    assert done.result["version"] == __version__
    where = subprocess.run(
        [installed / "bin/python", "-c", "import kowalski.node; print(kowalski.node.__file__)"],
        check=True,
        capture_output=True,
        text=True,
        env=cluster.environment,
        cwd=cluster.folder,
        timeout=30,
    )
    assert Path(where.stdout.strip()).is_relative_to(installed)


def test_an_installed_node_runs_programs_and_a_model_that_writes_some(
    cluster: Cluster, tmp_path: Path
) -> None:
    with open_model_server(tmp_path, root=[ANSWER]) as models:
        node = cluster.start("installed", "--no-mdns", "--backend", models.url)
        node.wait_until_up(START_S)
        for language, code in {"python": "print(6 * 7)", "bash": "echo $((6 * 7))"}.items():
            done = cluster.cli(node, "run", "--language", language, "--code", code)
            assert (done.exit_code, done.stdout) == (0, "42\n"), done
        done = cluster.cli(node, "submit", "--json", "--mode", "rlm", "Where do you come from?")
        assert done.exit_code == 0, done
        assert done.result["answer"] == "from the wheel"
        assert node.stop() == 0
