"""Every module has its tests where a reader looks for them: `a/b.py` in `tests/a/test_b.py`."""

from pathlib import Path, PurePosixPath

import pytest

from tests.architecture.source_tree import ROOT, Module, modules, plant

# Modules without a mirror, as patterns of paths, each with the reason. A pattern that no module
# needs leaves the list.
EXCEPTIONS: dict[str, str] = {
    "mesh/core/connectivity_events.py": "declarations of the machine beside it",
    "mesh/core/decisions.py": "a declaration",
    "mesh/core/failure_detector_*.py": "one machine: test_failure_detector.py and its histories",
    "mesh/core/hearsay.py": "the ears of the same machine",
    "mesh/peer_facts.py": "a declaration",
    "mesh/transport.py": "a seam; each implementation is held against it",
    "mesh/libp2p_*.py": "one room, one face: test_libp2p_transport.py, on real hosts",
    "node/core/task_ledger_*.py": "parts of one machine, which test_task_ledger.py drives",
    "node/backends/seam.py": "a seam, without code of its own",
    "node/repl/seam.py": "a seam, without code of its own",
}


def modules_without_tests(root: Path, exceptions: dict[str, str]) -> list[str]:
    return [
        f"{module.path}: no {module.mirror}"
        for module in unmirrored(root)
        if not any(module.path.match(pattern) for pattern in exceptions)
    ]


def stale_exceptions(root: Path, exceptions: dict[str, str]) -> list[str]:
    needing = [module.path for module in unmirrored(root)]
    return [
        pattern
        for pattern, reason in exceptions.items()
        if not reason or not any(path.match(pattern) for path in needing)
    ]


def unmirrored(root: Path) -> list[Module]:
    return [
        module
        for module in modules(root)
        if not module.is_package and not (root / module.mirror).exists()
    ]


def test_every_module_has_a_mirrored_test_file() -> None:
    assert not (found := modules_without_tests(ROOT, EXCEPTIONS)), "\n".join(found)


def test_every_exception_is_still_needed_and_says_why() -> None:
    assert not (found := stale_exceptions(ROOT, EXCEPTIONS)), "\n".join(found)


@pytest.mark.parametrize(
    "path", ["mesh/core/scorer.py", "kowalski/rlm/session.py", "simulations/run.py"]
)
def test_a_module_without_a_mirror_is_found(tmp_path: Path, path: str) -> None:
    mirror = PurePosixPath("tests") / Path(path).parent / f"test_{Path(path).name}"
    plant(tmp_path, {path: "x = 1\n", "tests/test_elsewhere.py": ""})
    assert modules_without_tests(tmp_path, {}) == [f"{path}: no {mirror}"]
    plant(tmp_path, {str(mirror): ""})
    assert modules_without_tests(tmp_path, {}) == []


def test_an_exception_that_is_gone_or_unreasoned_or_has_its_mirror_is_found(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {"mesh/a.py": "", "mesh/b.py": "", "tests/mesh/test_b.py": "", "mesh/fine.py": ""},
    )
    exceptions = {
        "mesh/gone.py": "a seam",
        "mesh/a.py": "",
        "mesh/b.py": "a seam",
        "mesh/fine.py": "y",
    }
    assert stale_exceptions(tmp_path, exceptions) == ["mesh/gone.py", "mesh/a.py", "mesh/b.py"]
