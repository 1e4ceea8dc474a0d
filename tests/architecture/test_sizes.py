"""A module fits a reader's memory, a function fits a screen."""

import ast
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT, modules, plant

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70


def long_modules(root: Path) -> list[str]:
    return [
        f"{module.path}: {module.lines} lines"
        for module in modules(root, kernels=True)
        if module.lines > MODULE_LINES_MAX
    ]


def long_functions(root: Path) -> list[str]:
    found = []
    for module in modules(root, kernels=True):
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    found.append(f"{module.path}: {node.name} has {lines} lines")
    return found


def test_no_module_is_longer_than_500_lines() -> None:
    assert not (found := long_modules(ROOT)), "\n".join(found)


def test_no_function_is_longer_than_70_lines() -> None:
    assert not (found := long_functions(ROOT)), "\n".join(found)


def test_a_module_of_501_lines_is_found(tmp_path: Path) -> None:
    plant(tmp_path, {"mesh/long.py": "x = 1\n" * 501, "mesh/fits.py": "x = 1\n" * 500})
    assert long_modules(tmp_path) == ["mesh/long.py: 501 lines"]


@pytest.mark.parametrize("keyword", ["def", "async def"])
def test_a_function_of_71_lines_is_found_wherever_it_stands(tmp_path: Path, keyword: str) -> None:
    body = "        x = 1\n"
    text = f"class A:\n    {keyword} fits(self):\n{body * 69}    {keyword} long(self):\n{body * 70}"
    plant(tmp_path, {"node/services/a.py": text})
    assert long_functions(tmp_path) == ["node/services/a.py: long has 71 lines"]
