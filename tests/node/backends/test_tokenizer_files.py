"""Tokenizer files of models on this disk: found where programs keep them, read by `tokenizers`."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from kowalski.node.backends.tokenizer_files import BATCH_CHARS, TokenizerFiles, installed, roots

WORDS = {"the": 0, "valve": 1, "is": 2, "shut": 3, "[UNK]": 4}
VOCABULARY = {
    "version": "1.0",
    "added_tokens": [],
    "pre_tokenizer": {"type": "Whitespace"},
    "model": {"type": "WordLevel", "vocab": WORDS, "unk_token": "[UNK]"},
}


def keep(folder: Path, text: str | None = None) -> Path:
    folder.mkdir(parents=True)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(VOCABULARY) if text is None else text)
    return path


def files(home: Path, **environment: str) -> TokenizerFiles:
    return TokenizerFiles(roots(home, environment), installed)


@pytest.mark.parametrize(
    "place",
    [
        ".cache/huggingface/hub/models--org--m-1B/snapshots/0a0b",
        ".local/share/exo/models/org--m-1B",
        ".exo/models/org--m-1B",
        ".lmstudio/models/org/m-1B",
    ],
)
def test_it_lies_where_programs_keep_their_models(tmp_path: Path, place: str) -> None:
    path = keep(tmp_path / place)
    assert files(tmp_path).find("org/m-1B") == path
    assert files(tmp_path).find("org/m-2B") is None


def test_the_environment_may_say_where_and_the_newest_of_several_counts(tmp_path: Path) -> None:
    old = keep(tmp_path / "hub/models--org--m/snapshots/1")
    new = keep(tmp_path / "hub/models--org--m/snapshots/2")
    os.utime(old, (1000, 1000))
    assert files(tmp_path / "home", HF_HUB_CACHE=str(tmp_path / "hub")).find("org/m") == new
    assert files(tmp_path / "home", HF_HOME=str(tmp_path)).find("org/m") == new
    assert files(tmp_path / "home").find("org/m") is None


@pytest.mark.parametrize("name", ["llama3.2", "", "/", "a/b/c", "../m", "org/..", "*/*", "org/[m]"])
def test_a_name_that_is_no_owner_and_model_finds_nothing(tmp_path: Path, name: str) -> None:
    keep(tmp_path / ".lmstudio/models/org/m")
    assert files(tmp_path).find(name) is None


@pytest.mark.trio
async def test_tokens_are_counted_by_the_library(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="the extra [tokens] is not installed")
    keep(tmp_path / ".lmstudio/models/org/m")
    counted = await files(tmp_path).count("org/m", ["the valve is shut", "", "the unknown"])
    assert counted == (4, 0, 2)


class Tokenizer:
    """Counts words, and hears of each batch; `hold` stops it inside of its first."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.began, self.hold = threading.Event(), threading.Event()

    def encode_batch(
        self, texts: Sequence[str], *, add_special_tokens: bool
    ) -> Sequence[SimpleNamespace]:
        assert not add_special_tokens
        self.batches.append(list(texts))
        self.began.set()
        assert self.hold.wait(30)
        return [SimpleNamespace(ids=text.split()) for text in texts]


@pytest.mark.trio
async def test_whoever_hangs_up_stops_the_count_at_the_text_that_it_is_at(tmp_path: Path) -> None:
    keep(tmp_path / ".lmstudio/models/org/m")
    tokenizer = Tokenizer()
    counting = TokenizerFiles(roots(tmp_path, {}), lambda: lambda _path: tokenizer)
    long = "word " * BATCH_CHARS
    async with trio.open_nursery() as nursery:
        nursery.start_soon(counting.count, "org/m", [long, "short", long, long])
        await trio.to_thread.run_sync(tokenizer.began.wait, 30)
        nursery.cancel_scope.cancel()
        tokenizer.hold.set()
    assert tokenizer.batches == [[long]]
    with trio.fail_after(30):  # the next one is not kept out by it
        assert await counting.count("org/m", ["a", "short", long, "b"]) == (1, 1, BATCH_CHARS, 1)
    assert tokenizer.batches[1:] == [["a", "short"], [long], ["b"]]


@pytest.mark.trio
async def test_without_the_file_the_library_or_sense_in_it_nobody_counts(tmp_path: Path) -> None:
    keep(tmp_path / ".lmstudio/models/org/broken", "{")
    keep(tmp_path / ".lmstudio/models/org/m")
    assert await files(tmp_path).count("org/none", ["x"]) is None
    assert await files(tmp_path).count("org/broken", ["x"]) is None
    without = TokenizerFiles(roots(tmp_path, {}), lambda: None)
    assert await without.count("org/m", ["x"]) is None
