"""Who may import what: the cores and the protocol touch no world, each dependency has one door.

import-linter holds the layers (`[tool.importlinter]`); what is here looks at the syntax alone, so
that an import inside a function, or one that import-linter's graph leaves out, counts as well.
"""

import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

from tests.architecture.source_tree import LINKS, RELATIVE, ROOT, modules, plant

PURE = ("protocol", "mesh/core", "node/core", "kowalski/rlm")
# I/O, clocks, randomness, and the libraries that bring them.
WORLD = frozenset(
    {
        *("trio", "asyncio", "threading", "multiprocessing", "concurrent", "subprocess"),
        *(
            "os",
            "io.open",
            "socket",
            "select",
            "ssl",
            "http",
            "urllib.request",
            "shutil",
            "tempfile",
        ),
        *("time", "random", "secrets", "uuid.uuid4", "sqlite3", "logging"),
        *(
            "structlog",
            "libp2p",
            "multiaddr",
            "zeroconf",
            "h11",
            "httptools",
            "psutil",
            "platformdirs",
        ),
    }
)


@dataclass(frozen=True)
class Door:
    """The modules, as patterns of paths, that alone may import some packages."""

    packages: frozenset[str]
    patterns: tuple[str, ...]


DOORS = (
    Door(frozenset({"libp2p", "multiaddr"}), ("mesh/libp2p_*.py",)),
    Door(frozenset({"zeroconf"}), ("mesh/discovery.py",)),
    Door(
        frozenset({"psutil"}),
        ("node/telemetry_sources.py", "node/doctor.py", "node/repl/process_tree.py"),
    ),
    Door(frozenset({"sqlite3"}), ("node/database.py",)),
    Door(frozenset({"cbor2"}), ("protocol/codec.py", "simulations/frames.py")),
    Door(frozenset({"jsonschema_rs"}), ("kowalski/rlm/schemas.py",)),
    Door(frozenset({"markdown_it"}), ("kowalski/rlm/parsing.py",)),
    Door(frozenset({"xllamacpp"}), ("node/backends/*.py",)),
    Door(frozenset({"tokenizers"}), ("node/backends/tokenizer_files.py",)),
    Door(frozenset({"platformdirs"}), ("node/places.py",)),
    Door(frozenset({"segno"}), ("node/cli_trust.py", "node/http/dashboard.py")),
    Door(frozenset({"opentelemetry"}), ("node/tracing.py",)),
    Door(frozenset({"pynvml"}), ("node/gpu_sources.py",)),
    Door(frozenset({"h11"}), ("node/http/connection.py",)),
    Door(frozenset({"httptools"}), ("node/backends/http_answers.py",)),
    Door(frozenset({"certifi"}), ("node/backends/http_pool.py",)),
    Door(frozenset({"prometheus_client"}), ("node/http/metrics.py",)),
)


def worldly_imports(root: Path) -> list[str]:
    return [
        f"{module.path}: {name}"
        for module in modules(root)
        if any(module.path.is_relative_to(folder) for folder in PURE)
        for name in sorted(module.imports_any_of(WORLD))
    ]


def imports_past_a_door(root: Path, doors: tuple[Door, ...] = DOORS) -> list[str]:
    everything = modules(root)
    return [
        f"{module.path}: {name}"
        for door in doors
        for module in everything
        if not any(module.path.match(pattern) for pattern in door.patterns)
        for name in sorted(module.imports_any_of(door.packages))
    ]


def imports_by_a_wrong_name(root: Path) -> list[str]:
    """From the root, `import mesh` works by accident and would load everything twice."""
    wrong = frozenset({PurePosixPath(link).name for link in LINKS} | {RELATIVE})
    return [
        f"{module.path}: {name}"
        for module in modules(root)
        for name in sorted(module.imports_any_of(wrong))
    ]


def test_protocol_cores_and_loop_import_no_io_no_clock_and_no_chance() -> None:
    assert not (found := worldly_imports(ROOT)), "\n".join(found)


def test_each_dependency_is_imported_behind_its_one_door() -> None:
    assert not (found := imports_past_a_door(ROOT)), "\n".join(found)


def test_nothing_is_imported_relatively_or_without_kowalski() -> None:
    assert not (found := imports_by_a_wrong_name(ROOT)), "\n".join(found)


@pytest.mark.parametrize("folder", PURE)
@pytest.mark.parametrize(
    "text",
    [
        "import time\n",
        "from os import path\n",
        "from uuid import uuid4\n",
        "def f():\n    import trio\n",
        "if True:\n    from libp2p.abc import IHost\n",
    ],
)
def test_an_import_of_the_world_in_a_pure_room_is_found(
    tmp_path: Path, folder: str, text: str
) -> None:
    assert len(worldly_imports(plant(tmp_path, {f"{folder}/a.py": text}))) == 1


def test_shells_may_import_the_world_and_cores_their_own(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "mesh/driver.py": "import trio\n",
            "mesh/core/a.py": "import kowalski.mesh.core.timeline\n",
        },
    )
    assert worldly_imports(tmp_path) == []


@pytest.mark.parametrize("door", DOORS, ids=lambda door: min(door.packages))
def test_a_second_importer_of_a_dependency_is_found(tmp_path: Path, door: Door) -> None:
    package = min(door.packages)
    allowed = door.patterns[0].replace("*", "transport")
    plant(tmp_path, {"node/app.py": f"from {package} import x\n", allowed: f"import {package}.x\n"})
    assert imports_past_a_door(tmp_path) == [f"node/app.py: {package}"]


@pytest.mark.parametrize(
    "text",
    ["import mesh\n", "from node.cli import main\n", "from . import a\n", "from .b import c\n"],
)
def test_an_import_by_a_wrong_name_is_found(tmp_path: Path, text: str) -> None:
    assert len(imports_by_a_wrong_name(plant(tmp_path, {"node/a.py": text}))) == 1


def test_the_doors_name_packages_and_not_typing_errors() -> None:
    from importlib.util import find_spec  # noqa: PLC0415

    for door in DOORS:
        for package in door.packages:
            assert package in sys.stdlib_module_names or find_spec(package), package
