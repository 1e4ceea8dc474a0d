"""Exact counts for models whose server does not count: by the `tokenizer.json` beside the model.

Hugging Face's `tokenizers` (extra `[tokens]`) reads it; without the extra, or without the file,
nobody counts here. Nothing is downloaded. Found are models of vLLM, SGLang, MLX and exo, in the
places that `roots` names; Ollama and GGUF files keep their vocabulary in a form of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from stat import S_ISREG
from typing import Final, Protocol, TypeAlias, cast

import structlog
import trio

log = structlog.get_logger(__name__)

LOADED_MAX: Final = 4
"""A vocabulary takes 30 to 100 MB."""

BATCH_CHARS: Final = 64 * 1024
"""About 50 ms of one core."""

FILE_BYTES_MAX: Final = 100 * 1024 * 1024
FILE: Final = "tokenizer.json"


class _Encoding(Protocol):
    ids: list[int]


class _Tokenizer(Protocol):
    def encode_batch(
        self, texts: Sequence[str], *, add_special_tokens: bool
    ) -> Sequence[_Encoding]: ...


Load: TypeAlias = Callable[[str], _Tokenizer]


def roots(home: Path, environment: Mapping[str, str]) -> tuple[tuple[str, Path], ...]:
    """Where programs keep models, each with how it spells their names."""
    cache = environment.get("HF_HOME") or str(home / ".cache" / "huggingface")
    hub = environment.get("HF_HUB_CACHE") or f"{cache}/hub"
    return (
        ("models--{owner}--{name}/snapshots/*", Path(hub)),
        ("{owner}--{name}", home / ".local" / "share" / "exo" / "models"),
        ("{owner}--{name}", home / ".exo" / "models"),
        ("{owner}/{name}", home / ".lmstudio" / "models"),
    )


class TokenizerFiles:
    """`find_load` gives what opens one file; None where the extra is not installed."""

    def __init__(
        self, places: Sequence[tuple[str, Path]], find_load: Callable[[], Load | None]
    ) -> None:
        self._places = places
        self._find_load = find_load
        self._loaded: dict[Path, _Tokenizer] = {}
        self._lock = trio.Lock()

    async def count(self, model: str, texts: Sequence[str]) -> tuple[int, ...] | None:
        """Tokens of each text, without special ones; None: nobody here can tell.

        One call at a time. A cancelled one ends after the text that it is at, of which a request
        holds at most 1 MiB: that takes a second.
        """
        async with self._lock:
            return await trio.to_thread.run_sync(self._count, model, list(texts))

    def _count(self, model: str, texts: list[str]) -> tuple[int, ...] | None:
        path = self.find(model)
        tokenizer = None if path is None else self._of(path)
        if tokenizer is None:
            return None
        counts: list[int] = []
        for some in _batches(texts):
            trio.from_thread.check_cancelled()
            encoded = tokenizer.encode_batch(some, add_special_tokens=False)
            counts += [len(one.ids) for one in encoded]
        return tuple(counts)

    def find(self, model: str) -> Path | None:
        """The newest file for a model that is called `owner/name`."""
        owner, slash, name = model.partition("/")
        if not (owner and slash and name) or "/" in name or ".." in (owner, name):
            return None
        ages = {path: _written_at(path) for path in self._candidates(owner, name)}
        sound = {path: at for path, at in ages.items() if at is not None}
        return max(sound, key=lambda path: sound[path], default=None)

    def _candidates(self, owner: str, name: str) -> Iterator[Path]:
        for spelling, root in self._places:
            literal = {"owner": _literal(owner), "name": _literal(name)}
            yield from root.glob(f"{spelling.format(**literal)}/{FILE}")

    def _of(self, path: Path) -> _Tokenizer | None:
        if path not in self._loaded:
            load = self._find_load()
            try:
                tokenizer = None if load is None else load(str(path))
            except Exception as error:  # noqa: BLE001 the library raises nothing narrower
                log.warning("tokenizer-unreadable", path=str(path), why=str(error)[:200])
                tokenizer = None
            if tokenizer is None:
                return None  # it may be whole, or the extra installed, the next time
            while len(self._loaded) >= LOADED_MAX:
                del self._loaded[next(iter(self._loaded))]
            self._loaded[path] = tokenizer
        return self._loaded[path]


def of_this_user() -> TokenizerFiles:
    return TokenizerFiles(roots(Path.home(), os.environ), installed)


def installed() -> Load | None:
    """What opens a file; None where `tokenizers` is not installed."""
    try:
        library = import_module("tokenizers")
    except ImportError:
        return None
    return cast("Load", library.Tokenizer.from_file)


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Whole texts, so many at once that a batch is over soon."""
    batch: list[str] = []
    chars = 0
    for text in texts:
        if batch and chars + len(text) > BATCH_CHARS:
            yield batch
            batch, chars = [], 0
        batch.append(text)
        chars += len(text)
    if batch:
        yield batch


def _literal(name: str) -> str:
    """A name as a pattern that means nothing else."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _written_at(path: Path) -> float | None:
    """None: no file, or one that is too large."""
    try:
        told = path.stat()
    except OSError:
        return None
    return told.st_mtime if S_ISREG(told.st_mode) and told.st_size <= FILE_BYTES_MAX else None
