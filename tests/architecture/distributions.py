"""Builds wheel and sdist from a copy of the tree, and says what should be in them."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tests.architecture.source_tree import PACKAGES, package_files

BUILD_TIMEOUT_S = 100

# What a build reads; the links are copied as links.
COPIED = ("protocol", "mesh", "node", "kowalski", "pyproject.toml", "README.md", "LICENSE")

INSTALLED = {folder: name for folder, name in PACKAGES.items() if folder != "simulations"}


@dataclass(frozen=True)
class Distributions:
    sdist: Path
    wheel: Path
    """Built from the tree."""
    wheel_of_sdist: Path


def build(root: Path, into: Path) -> Distributions:
    direct = build_wheel(root, into)
    _run_build(into / "tree", into / "through", "--sdist")
    (sdist,) = (into / "through").glob("*.tar.gz")
    (into / "unpacked").mkdir()
    # The program: Debian 12's Python has no safe way to unpack, and later ones insist on it.
    subprocess.run(["tar", "-xzf", sdist, "-C", into / "unpacked"], check=True)
    (unpacked,) = (into / "unpacked").iterdir()
    _run_build(unpacked, into / "through", "--wheel")
    (through,) = (into / "through").glob("*.whl")
    return Distributions(sdist=sdist, wheel=direct, wheel_of_sdist=through)


def build_wheel(root: Path, into: Path) -> Path:
    """Build from a copy: setuptools leaves `build/` behind, and would pick it up the next time."""
    tree = into / "tree"
    tree.mkdir(parents=True)
    for name in COPIED:
        source = root / name
        if source.is_dir():
            leftovers = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(source, tree / name, symlinks=True, ignore=leftovers)
        else:
            shutil.copy2(source, tree / name)
    _run_build(tree, into / "direct", "--wheel")
    (wheel,) = (into / "direct").glob("*.whl")
    return wheel


def _run_build(tree: Path, out: Path, what: str) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", what, "--outdir", out, tree]
    finished = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


def wheel_contents(wheel: Path) -> dict[str, bytes]:
    """Every file of the packages: what stands in `*.dist-info` describes the wheel, not us."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            name: archive.read(name)
            for name in archive.namelist()
            if ".dist-info/" not in name and not name.endswith("/")
        }


def expected_contents(root: Path) -> dict[str, bytes]:
    """Every file of the source folders, under the name that it should be installed by."""
    return {
        f"{package.replace('.', '/')}/{path.relative_to(folder)}": (root / path).read_bytes()
        for folder, package in INSTALLED.items()
        for path in package_files(root, folder)
    }


def package_folders(root: Path) -> set[str]:
    """Every package by its dotted name: a folder with Python files that says it is one."""
    found = set()
    for folder, package in INSTALLED.items():
        for path in package_files(root, folder):
            if path.name == "__init__.py":
                inner = path.parent.relative_to(folder).parts
                found.add(".".join((package, *inner)))
    return found


def folders_without_init(root: Path, exceptions: frozenset[str]) -> set[PurePosixPath]:
    """Folders with Python files that no package list could name."""
    return {
        path.parent
        for folder in INSTALLED
        for path in package_files(root, folder)
        if path.suffix == ".py"
        and str(path.parent) not in exceptions
        and not (root / path.parent / "__init__.py").exists()
    }


def listed_packages(root: Path) -> set[str]:
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return set(settings["tool"]["setuptools"]["packages"])
