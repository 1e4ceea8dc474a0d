from __future__ import annotations

import os
from pathlib import Path

import pytest

from kowalski.node.repl.compile_cache import LIBRARY, PROGRAM_BYTES_MAX, CompileCache


def test_a_program_is_found_by_language_version_and_source(tmp_path: Path) -> None:
    cache = CompileCache(tmp_path / "compiled")
    assert cache.find("rust", "1", "code") is None
    cache.keep("rust", "1", "code", b"program")
    found = cache.find("rust", "1", "code")
    assert found is not None
    assert found.read_bytes() == b"program"
    assert found.stat().st_mode & 0o777 == 0o555
    for other in (("go", "1", "code"), ("rust", "2", "code"), ("rust", "1", "code ")):
        assert cache.find(*other) is None
    assert cache.find("rust", "1", LIBRARY) is None


def test_no_source_can_pass_for_a_library(tmp_path: Path) -> None:
    cache = CompileCache(tmp_path)
    cache.keep("go", "1", "library", b"x")
    assert cache.find("go", "1", LIBRARY) is None


def test_the_longest_unused_goes_when_there_is_no_room(tmp_path: Path) -> None:
    cache = CompileCache(tmp_path, bytes_max=30)
    for at, code in enumerate("abc"):
        cache.keep("rust", "1", code, b"0123456789")
        path = cache.find("rust", "1", code)
        assert path is not None
        os.utime(path, (at, at))
    assert cache.find("rust", "1", "a")
    cache.keep("rust", "1", "d", b"0123456789")
    assert [bool(cache.find("rust", "1", code)) for code in "abcd"] == [True, False, True, True]


@pytest.mark.parametrize("size", [31, PROGRAM_BYTES_MAX + 1])
def test_what_is_too_large_is_not_kept_and_costs_nobody_else_a_place(
    tmp_path: Path, size: int
) -> None:
    cache = CompileCache(tmp_path, bytes_max=30)
    cache.keep("rust", "1", "small", b"x")
    cache.keep("rust", "1", "large", bytes(size))
    assert cache.find("rust", "1", "large") is None
    assert cache.find("rust", "1", "small")


def test_a_disk_that_refuses_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "compiled").write_text("a file where the folder should be")
    cache = CompileCache(tmp_path / "compiled")
    cache.keep("rust", "1", "code", b"program")
    assert cache.find("rust", "1", "code") is None
