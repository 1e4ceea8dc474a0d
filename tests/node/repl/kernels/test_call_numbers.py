"""What is asked of the kernel by number, on each machine: the numbers of the kernel's headers.

The headers of aarch64 lie on every Linux as asm-generic. Nothing of this was run on aarch64.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from kowalski.node.repl import seccomp

HEADERS = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",
}
CALLS = {
    "LANDLOCK_CREATE": "landlock_create_ruleset",
    "LANDLOCK_ADD": "landlock_add_rule",
    "LANDLOCK_RESTRICT": "landlock_restrict_self",
    "PIVOT_ROOT": "pivot_root",
    "SET_ATTRIBUTES": "mount_setattr",
}
"""Every call that a kernel makes by number, and its name in the headers."""

SINGLE = (
    "_CLONE",
    "_SOCKET",
    "_IOCTL",
    "_PERSONALITY",
    "_SOCKETPAIR",
    "_SETPRIORITY",
    "_IOPRIO_SET",
)
"""Numbers of the filter that stand on their own, named as their calls."""


def sources() -> dict[str, ast.Module]:
    folder = Path(seccomp.__file__).parent / "kernels"
    return {path.name: ast.parse(path.read_text()) for path in folder.glob("*.py")}


def constants() -> dict[str, object]:
    """What kernels assign to names in capitals, where it is a literal."""
    found: dict[str, object] = {}
    for node in (each for tree in sources().values() for each in tree.body):
        if not isinstance(node, ast.Assign):
            continue
        (target,) = node.targets
        pairs: list[tuple[ast.expr, ast.expr]] = [(target, node.value)]
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = list(zip(target.elts, node.value.elts, strict=True))
        for name, value in pairs:
            if isinstance(name, ast.Name) and isinstance(value, ast.Constant | ast.Dict):
                found[name.id] = ast.literal_eval(value)
    return found


def numbers(machine: str) -> dict[str, int]:
    header = Path(HEADERS[machine])
    if not header.exists():
        pytest.skip(f"no {header} here")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    return {name: int(number) for name, number in found}


@pytest.mark.parametrize("machine", HEADERS)
def test_calls_by_number_are_those_of_the_headers(machine: str) -> None:
    known, told = numbers(machine), constants()
    for constant, call in CALLS.items():
        value = told[constant]
        assert (value[machine] if isinstance(value, dict) else value) == known[call], constant
    for name in SINGLE:
        assert vars(seccomp)[name][machine] == known[name.strip("_").lower()], name


def test_no_kernel_calls_a_number_that_is_not_compared() -> None:
    asked = [
        ast.unparse(node.args[1])
        for tree in sources().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and node.args[0].value == "syscall"
    ]
    assert len(asked) >= len(CALLS)
    assert {name.partition("[")[0] for name in asked} == set(CALLS)
