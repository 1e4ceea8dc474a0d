"""The product's source as the house rules see it: folders, modules and what they import.

Works on any root, so that each rule can be tried on a made-up tree that breaks it.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]

# Folder below the root, and the package that it is.
PACKAGES = {
    "protocol": "kowalski.protocol",
    "mesh": "kowalski.mesh",
    "node": "kowalski.node",
    "kowalski": "kowalski",
    "simulations": "simulations",
}
# The links that show a bare checkout the first three under their package names.
LINKS = ("kowalski/protocol", "kowalski/mesh", "kowalski/node")
# Programs for inside the sandbox: they are installed as data and import nothing of ours.
KERNELS = "node/repl/kernels"

# Stands for any relative import.
RELATIVE = "relative"


@dataclass(frozen=True)
class Module:
    """One Python file; `path` is relative to the root, with slashes."""

    root: Path
    path: PurePosixPath

    @cached_property
    def text(self) -> str:
        return (self.root / self.path).read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=str(self.path))

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def mirror(self) -> PurePosixPath:
        return PurePosixPath("tests") / self.path.with_name(f"test_{self.path.name}")

    @cached_property
    def imports(self) -> frozenset[str]:
        """Every dotted name that is imported, wherever in the file.

        `from a import b` counts as `a.b`, and a relative import as `RELATIVE`.
        """
        found: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                found.add(RELATIVE)
        return frozenset(found)

    def imports_any_of(self, names: frozenset[str]) -> frozenset[str]:
        """Those of `names` that are imported, as themselves or as something inside them."""
        return frozenset(
            name
            for name in names
            if any(found == name or found.startswith(f"{name}.") for found in self.imports)
        )


def package_files(root: Path, folder: str) -> Iterator[PurePosixPath]:
    """Every file of a top-level folder, once: through its real path, never through a link."""
    for path in sorted((root / folder).rglob("*")):
        relative = PurePosixPath(path.relative_to(root).as_posix())
        is_linked = any(relative.is_relative_to(link) for link in LINKS)
        is_leftover = "__pycache__" in relative.parts or any(
            part.endswith(".egg-info") for part in relative.parts
        )
        if path.is_file() and not is_linked and not is_leftover:
            yield relative


def modules(root: Path = ROOT, *, kernels: bool = False) -> list[Module]:
    """Every Python file of the product; the kernels only where asked for."""
    return [
        Module(root, path)
        for folder in PACKAGES
        for path in package_files(root, folder)
        if path.suffix == ".py" and (kernels or not path.is_relative_to(KERNELS))
    ]


def plant(root: Path, files: dict[str, str]) -> Path:
    """Write a made-up tree, for a rule to complain about."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root
