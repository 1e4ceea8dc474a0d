from __future__ import annotations

from pathlib import Path

import pytest

from kowalski.node.repl.language_book import LanguageBook
from kowalski.node.repl.opening import Trial, open_host_here, try_here
from kowalski.node.repl.sandbox import SandboxVerdict
from tests.node.repl.rooms import Talk, sandbox_here, until

pytestmark = [pytest.mark.trio]


@pytest.mark.real
async def test_quick_languages_are_there_at_once_and_slow_ones_follow(tmp_path: Path) -> None:
    sandbox_here()
    trial = await try_here(scratch_path=tmp_path, allow_none=False, offers_repl=True)
    assert {"python", "bash"} <= set(trial.verdict.languages)
    assert "perl" not in trial.verdict.languages
    async with open_host_here(
        trial, slots=1, data_dir=tmp_path, scratch_path=tmp_path / "content"
    ) as host:
        assert host is not None
        assert "python" in host.languages
        cell = Talk(await host.open("python", {}, 0))
        assert (await cell("1")).value == "1"
        book = LanguageBook(tmp_path / "languages.json")
        await until(lambda: "perl" in book.read(), within_s=60)
        if not book.read()["perl"].version:
            pytest.skip("no perl here: it lacks its modules")
        assert host.languages["perl"] == book.read()["perl"].version


@pytest.mark.real
async def test_a_node_that_runs_no_code_looks_for_no_language(tmp_path: Path) -> None:
    trial = await try_here(scratch_path=tmp_path, allow_none=False, offers_repl=False)
    assert trial.verdict.languages == {}
    assert trial.toolchains.found == {}


async def test_where_nothing_contains_code_there_is_no_host(tmp_path: Path) -> None:
    trial = Trial(SandboxVerdict(None, "none", "no reason"))
    async with open_host_here(trial, slots=1, data_dir=tmp_path, scratch_path=tmp_path) as host:
        assert host is None
