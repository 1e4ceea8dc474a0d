"""Some names only say that a noun is missing."""

import ast
import re
from pathlib import Path

import pytest

from tests.architecture.source_tree import LINKS, PACKAGES, ROOT, modules, plant

CLASS_WORDS = frozenset({"Manager", "Handler", "Helper", "Helpers", "Utils", "Util"})
MODULE_WORDS = frozenset(
    {"manager", "handler", "handlers", "helper", "helpers", "util", "utils", "misc", "common"}
)


def class_words(name: str) -> set[str]:
    return set(re.findall(r"[A-Z][a-z0-9]*", name))


def empty_names(root: Path) -> list[str]:
    found = []
    for module in modules(root):
        words = {word for part in module.path.with_suffix("").parts for word in part.split("_")}
        found += [f"{module.path}: {word}" for word in sorted(words & MODULE_WORDS)]
        found += [
            f"{module.path}: class {node.name}"
            for node in ast.walk(module.tree)
            if isinstance(node, ast.ClassDef) and class_words(node.name) & CLASS_WORDS
        ]
    return found


def test_nothing_is_called_manager_handler_helper_utils_misc_or_common() -> None:
    assert not (found := empty_names(ROOT)), "\n".join(found)


@pytest.mark.parametrize("path", ["mesh/utils.py", "node/misc/a.py", "mesh/stream_helpers.py"])
def test_a_module_that_names_nothing_is_found(tmp_path: Path, path: str) -> None:
    assert len(empty_names(plant(tmp_path, {path: "x = 1\n"}))) == 1


@pytest.mark.parametrize("name", ["PeerManager", "_HandlerOfFrames", "TaskHelper"])
def test_a_class_that_names_nothing_is_found(tmp_path: Path, name: str) -> None:
    plant(tmp_path, {"mesh/a.py": f"def f():\n    class {name}: ...\n"})
    assert empty_names(tmp_path) == [f"mesh/a.py: class {name}"]


def test_words_that_only_contain_a_forbidden_one_are_fine(tmp_path: Path) -> None:
    plant(tmp_path, {"mesh/commonmark.py": "class Handled: ...\n"})
    assert empty_names(tmp_path) == []


def test_the_links_lead_to_the_folders_that_are_the_packages() -> None:
    for link in LINKS:
        folder = ROOT / Path(link).name
        assert (ROOT / link).is_symlink()
        assert (ROOT / link).resolve() == folder
        assert folder.name in PACKAGES
