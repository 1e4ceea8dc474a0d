"""Folding through the client: there and back, by a question, and what goes wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from kowalski import errors
from kowalski.node.control import Emit
from kowalski.protocol.errors import RequestFailedError, RequestRefusedError
from tests.kowalski.test_client import Node, Reply, client

pytestmark = pytest.mark.trio


async def test_what_was_folded_is_had_again_and_found_by_a_question(tmp_path: Path) -> None:
    handle, long = "ab" * 32, tmp_path / "long"
    long.write_text("a long original")
    asked: list[Reply] = []

    async def fold(request: Reply, _emit: Emit) -> Reply:
        asked.append(request)
        told = {"text": "short", "source_tokens": 8, "tokens": 2, "algorithm": "x", "peer": "p"}
        return {**told, "name": "gpu", "handle": handle}

    async def unfold(request: Reply, _emit: Emit) -> Reply:
        if request["handle"] != handle:
            raise RequestRefusedError("unknown", "no peer holds it")
        if request.get("question"):
            return {"handle": handle, "bytes": 15, "text": "a passage", "tokens": 2}
        return {"handle": handle, "bytes": 15, "files": [{"name": "x", "path": str(long)}]}

    async def folds(request: Reply, _emit: Emit) -> Reply:
        asked.append(request)
        row = {"handle": handle, "name": "notes", "bytes": 15, "at_s": 1.0, "score": 1.0}
        return {"folds": [{**row, "text": "long"}], "searched": 1, "model": None, "why_not": ""}

    async with client(tmp_path, Node(fold=fold, unfold=unfold, folds=folds)) as k:
        assert (await k.fold("a long original")).handle == handle
        assert await k.unfold(handle) == "a long original"
        assert await k.unfold(handle, question="what?") == "a passage"
        (found,) = await k.find_folds("what is long?", count=2)
        with pytest.raises(errors.ContextFoldingError, match="no peer holds it"):
            await k.unfold("cd" * 32)
    assert (found.handle, found.name, found.score, found.text) == (handle, "notes", 1.0, "long")
    assert asked[0]["name"] == "a long original"
    assert asked[1] == {"question": "what is long?", "count": 2, "timeout_s": 60.0}


async def test_a_fold_that_fails_is_an_error_of_its_own(tmp_path: Path) -> None:
    async def fold(_request: Reply, _emit: Emit) -> Reply:
        raise RequestFailedError("peers_failed", "gpu: gone")

    async def nobody(_request: Reply, _emit: Emit) -> Reply:
        raise RequestRefusedError("no_peer", "nobody folds")

    async with client(tmp_path, Node(fold=fold)) as k:
        with pytest.raises(errors.ContextFoldingError, match="gpu: gone"):
            await k.fold("text")
    async with client(tmp_path, Node(fold=nobody)) as k:
        with pytest.raises(errors.NoDevicesAvailable):
            await k.fold("text")
