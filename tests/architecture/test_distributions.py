"""What is in the source folders is in the wheel, under the right names, and nothing else is."""

import shutil
from pathlib import Path

import pytest

from tests.architecture import distributions
from tests.architecture.distributions import Distributions
from tests.architecture.source_tree import KERNELS, ROOT, plant

# Three builds of some seconds each on a busy machine.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    return distributions.build(ROOT, tmp_path_factory.mktemp("built"))


def test_every_package_folder_is_listed_in_pyproject() -> None:
    assert distributions.package_folders(ROOT) == distributions.listed_packages(ROOT)


def test_every_folder_with_modules_is_a_package() -> None:
    assert distributions.folders_without_init(ROOT, frozenset({KERNELS})) == set()


def test_the_wheel_holds_every_file_of_the_packages_and_no_other(built: Distributions) -> None:
    inside = distributions.wheel_contents(built.wheel)
    expected = distributions.expected_contents(ROOT)
    assert sorted(inside) == sorted(expected)


def test_the_data_that_is_read_at_run_time_is_in_the_wheel(built: Distributions) -> None:
    inside = distributions.wheel_contents(built.wheel)
    assert "kowalski/py.typed" in inside
    assert "kowalski/protocol/wire.cddl" in inside
    for folder in ("kowalski/rlm/prompts/", "kowalski/node/repl/kernels/"):
        assert any(name.startswith(folder) for name in inside), folder


def test_nothing_installs_under_a_name_but_kowalski(built: Distributions) -> None:
    inside = distributions.wheel_contents(built.wheel)
    assert {name.split("/")[0] for name in inside} == {"kowalski"}


def test_the_wheel_of_the_sdist_is_the_wheel_of_the_tree(built: Distributions) -> None:
    through_sdist = distributions.wheel_contents(built.wheel_of_sdist)
    assert through_sdist == distributions.wheel_contents(built.wheel)


@pytest.fixture
def small_house(tmp_path: Path) -> Path:
    """A tree with the real pyproject.toml cut down to two packages."""
    settings = """
        [build-system]
        requires = ["setuptools>=77"]
        build-backend = "setuptools.build_meta"
        [project]
        name = "small-house"
        version = "0"
        [tool.setuptools]
        packages = ["kowalski", "kowalski.mesh"]
        package-dir = { "kowalski" = "kowalski", "kowalski.mesh" = "mesh" }
    """
    root = plant(
        tmp_path / "house",
        {
            "pyproject.toml": settings.replace("\n        ", "\n"),
            "README.md": "",
            "LICENSE": "",
            "kowalski/__init__.py": "",
            "mesh/__init__.py": "",
        },
    )
    (root / "node").mkdir()
    (root / "protocol").mkdir()
    (root / "kowalski" / "mesh").symlink_to("../mesh")
    return root


def test_a_forgotten_package_and_forgotten_data_are_missed_in_the_wheel(
    small_house: Path, tmp_path: Path
) -> None:
    forgotten = {"mesh/core/__init__.py": "", "mesh/core/scorer.py": "", "mesh/wire.cddl": ""}
    plant(small_house, forgotten)
    built = distributions.build(small_house, tmp_path / "built")
    inside = set(distributions.wheel_contents(built.wheel))
    missing = set(distributions.expected_contents(small_house)) - inside
    assert missing == {f"kowalski/{name}" for name in forgotten}
    listed = distributions.listed_packages(small_house)
    assert distributions.package_folders(small_house) - listed == {"kowalski.mesh.core"}


def test_a_folder_of_modules_that_is_no_package_is_found(small_house: Path) -> None:
    plant(small_house, {"mesh/core/scorer.py": "", "mesh/kernels/python.py": ""})
    found = distributions.folders_without_init(small_house, frozenset({"mesh/kernels"}))
    assert {str(folder) for folder in found} == {"mesh/core"}
    shutil.rmtree(small_house / "mesh" / "core")
    assert not distributions.folders_without_init(small_house, frozenset({"mesh/kernels"}))
