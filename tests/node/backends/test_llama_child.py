"""A GGUF file, served by the real llama.cpp in a child that dies, and in files that are none."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import trio

from kowalski.node.backends import llama_program
from kowalski.node.backends.catalogue import Catalogue, open_catalogue
from kowalski.node.backends.gguf_metadata import GgufMetadata
from kowalski.node.backends.http import open_http
from kowalski.node.backends.llama_child import open_model_files, settings_for
from kowalski.node.backends.model_files import parse_model_file
from kowalski.node.backends.probing import Candidate, Finding, probe
from kowalski.node.backends.seam import BackendError, Completed
from kowalski.protocol.errors import ConfigError
from tests.node.backends.asking import estimate, exhaust, question
from tests.tiny_gguf import make_tiny_gguf

pytest.importorskip("xllamacpp", reason="the extra [llama] is not installed")
pytestmark = [pytest.mark.trio, pytest.mark.real]

PATIENCE_S = 60


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "Tiny-3B-Instruct-Q4_K_M.gguf"
    make_tiny_gguf(path)
    return path


@asynccontextmanager
async def serving(*files: str) -> AsyncIterator[Catalogue]:
    async with open_http() as http:

        async def look(places: Sequence[Candidate]) -> tuple[Finding, ...]:
            return await probe(places, http=http, estimate_tokens=estimate)

        async with (
            open_catalogue((), look) as catalogue,
            open_model_files(files, catalogue),
        ):
            yield catalogue


async def until_models(catalogue: Catalogue, count: int) -> None:
    with trio.fail_after(PATIENCE_S):
        while len(catalogue.listings()) != count:
            await catalogue.wait_changed()


def children() -> list[psutil.Process]:
    ours = psutil.Process().children(recursive=True)
    return [one for one in ours if llama_program.__name__ in one.cmdline()]


async def test_a_file_is_served_like_any_server_and_ends_with_the_block(tiny: Path) -> None:
    async with serving(f"{tiny}?threads=1&slots=3&context=2048") as catalogue:
        await until_models(catalogue, 1)
        (listing,) = catalogue.listings()
        model = listing.model
        assert (model.name, model.slots, model.context_tokens) == (tiny.stem, 3, 2048)
        assert (listing.backend_name, model.is_warm) == ("llama-server", True)
        assert {"chat", "embed"} <= set(model.capabilities)
        asked = question(model="tiny:3b", max_tokens=3, temperature=0.0)
        async with catalogue.answer(asked, idle_timeout_s=30) as events:
            heard = [event async for event in events]
        assert isinstance(heard[-1], Completed)
        assert len(children()) == 1
    assert children() == []


async def test_its_key_is_not_in_its_arguments_and_nobody_is_answered_without(
    tiny: Path,
) -> None:
    async with serving(f"{tiny}?threads=1") as catalogue, open_http() as http:
        await until_models(catalogue, 1)
        (finding,) = catalogue.findings
        reply = await http.fetch(f"{finding.url}/v1/chat/completions", method="POST", timeout_s=5)
        assert reply.status == 401
        (child,) = children()
        assert "key" not in " ".join(child.cmdline())
        assert finding.url.startswith("http://127.0.0.1:")


async def test_a_child_that_dies_fails_its_answers_and_is_started_again(tiny: Path) -> None:
    async with serving(f"{tiny}?threads=1") as catalogue:
        await until_models(catalogue, 1)
        (first,) = children()
        asked = question(model="", max_tokens=4000, temperature=0.0)
        async with catalogue.answer(asked, idle_timeout_s=30) as events:
            await anext(events)
            os.kill(first.pid, signal.SIGKILL)
            with pytest.raises(BackendError, match="unreachable"):
                await exhaust(events)
        await until_models(catalogue, 0)
        await until_models(catalogue, 1)
        (second,) = children()
        assert second.pid != first.pid


async def test_a_file_that_looks_right_and_is_broken_is_told_and_given_up(
    tiny: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(tiny.read_bytes()[:100_000])
    async with serving(f"{broken}?threads=1") as catalogue:
        with trio.fail_after(PATIENCE_S):
            while "starts again" not in (why := " ".join(f.why_not for f in catalogue.findings)):  # noqa: ASYNC110 nobody tells of findings
                await trio.sleep(0.05)
        assert "load" in why
        assert "Traceback" not in why
        assert catalogue.listings() == ()


async def test_a_file_that_is_none_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with serving(str(tmp_path / "no.gguf")):
            pass
    assert caught.group_contains(ConfigError, match="No such file")


async def test_the_context_is_no_more_than_the_model_reads_and_pooling_its_own() -> None:
    file = parse_model_file("/m/x.gguf?context=16384")
    head = GgufMetadata("llama", "", 4096, pools=False, size_bytes=1)
    settings = settings_for(file, head)
    assert (settings.context_tokens, settings.sets_pooling) == (4096, True)
    encoder = GgufMetadata("bert", "", None, pools=True, size_bytes=1)
    settings = settings_for(file, encoder)
    assert (settings.context_tokens, settings.sets_pooling) == (8192, False)
