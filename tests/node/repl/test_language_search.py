from __future__ import annotations

from pathlib import Path

import pytest

from kowalski.node.repl.kernel_source import KernelSource
from kowalski.node.repl.language_book import LanguageBook
from kowalski.node.repl.language_search import search_languages
from kowalski.node.repl.languages import LANGUAGES
from kowalski.node.repl.limits import Limits
from kowalski.node.repl.toolchains import Toolchain, Toolchains, find_toolchains
from tests.node.repl.rooms import kernel_source, sandbox_for

pytestmark = [pytest.mark.real, pytest.mark.trio]


async def search(
    source: KernelSource, toolchains: Toolchains, book: LanguageBook
) -> dict[str, str]:
    found: dict[str, str] = {}
    await search_languages(source, toolchains, book, found.__setitem__, limits=Limits(), cache=None)
    return found


async def test_a_slow_language_is_tried_once_and_known_from_then_on(tmp_path: Path) -> None:
    sandbox = sandbox_for("perl")
    toolchains = find_toolchains({"perl": LANGUAGES["perl"].needs, "bash": ("bash",)})
    book = LanguageBook(tmp_path / "book")
    async with kernel_source(sandbox) as source:
        first = await search(source, toolchains, book)
        assert set(first) == {"perl"}
        line = book.read()["perl"]
        assert line.version == first["perl"]
        # What the book says is believed, as long as it is about the same programs.
        book.write("perl", line.condition, "told")
        assert await search(source, toolchains, book) == {"perl": "told"}
        book.write("perl", "another time", "told")
        assert await search(source, toolchains, book) == first


async def test_what_does_not_work_is_remembered_as_that(tmp_path: Path) -> None:
    sandbox_for("perl")
    toolchains = Toolchains({"ruby": Toolchain((Path("/bin/sh"),))})
    book = LanguageBook(tmp_path / "book")
    # No ruby is shown in there, wherever it may be on this machine.
    async with kernel_source(kernels={"ruby_kernel.py": compile("0", "x", "exec")}) as source:
        assert await search(source, toolchains, book) == {}
    assert book.read()["ruby"].version == ""
