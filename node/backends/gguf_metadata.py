"""What the head of a GGUF file says of the model in it; no tensor is read.

Format: github.com/ggml-org/ggml, docs/gguf.md, versions 2 and 3. A head may be many megabytes, for
the tokenizer is in it; it is read once, at the start of a node.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from kowalski.protocol.errors import ConfigError

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
KEYS_MAX: Final = 100_000
TEXT_BYTES_MAX: Final = 16 * 1024 * 1024
ITEMS_MAX: Final = 4_000_000

_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?"} | {
    10: "Q",
    11: "q",
    12: "d",
}
_TEXT, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class GgufMetadata:
    """None and empty where the file does not tell. `pools`: it says how vectors are pooled."""

    architecture: str
    name: str
    context_tokens: int | None
    pools: bool
    size_bytes: int

    @property
    def only_embeds(self) -> bool:
        """An encoder, which answers nothing."""
        return "bert" in self.architecture


class _BrokenError(Exception):
    pass


def read_metadata(path: Path) -> GgufMetadata:
    """Read the head.

    Raises:
        ConfigError: the file cannot be read, or is none.
    """
    try:
        with path.open("rb") as file:
            size_bytes = path.stat().st_size
            found = dict(_pairs(file))
    except OSError as error:
        raise ConfigError(f"model file {path}: {error.strerror or error}") from error
    except (_BrokenError, struct.error, UnicodeDecodeError, OverflowError) as error:
        raise ConfigError(f"model file {path} is no GGUF file: {error}") from error
    architecture = _text(found.get("general.architecture"))
    context = found.get(f"{architecture}.context_length")
    return GgufMetadata(
        architecture,
        _text(found.get("general.name")),
        context if isinstance(context, int) and context > 0 else None,
        f"{architecture}.pooling_type" in found,
        size_bytes,
    )


def _pairs(file: BinaryIO) -> list[tuple[str, object]]:
    if file.read(4) != MAGIC:
        raise _BrokenError("it does not begin with GGUF")
    (version,) = _unpack(file, "I")
    if version not in VERSIONS:
        raise _BrokenError(f"version {version}; known are {VERSIONS[0]} and {VERSIONS[1]}")
    _tensors, keys = _unpack(file, "QQ")
    if keys > KEYS_MAX:
        raise _BrokenError(f"{keys} keys")
    return [(_read_text(file), _read_value(file, *_unpack(file, "I"))) for _ in range(keys)]


def _read_value(file: BinaryIO, kind: int) -> object:
    """A scalar or a text; of an array nothing is kept."""
    if kind == _TEXT:
        return _read_text(file)
    if kind == _ARRAY:
        inner, count = _unpack(file, "IQ")
        _skip(file, inner, count)
        return None
    if kind not in _SCALARS:
        raise _BrokenError(f"a value of type {kind}")
    (value,) = _unpack(file, _SCALARS[kind])
    return value


def _skip(file: BinaryIO, kind: int, count: int) -> None:
    if count > ITEMS_MAX:
        raise _BrokenError(f"an array of {count} items")
    if kind in _SCALARS:
        _read(file, struct.calcsize(f"<{_SCALARS[kind]}") * count)
        return
    for _ in range(count):
        _read_value(file, kind)


def _read_text(file: BinaryIO) -> str:
    (length,) = _unpack(file, "Q")
    if length > TEXT_BYTES_MAX:
        raise _BrokenError(f"a text of {length} bytes")
    return _read(file, length).decode("utf-8", errors="replace")


def _unpack(file: BinaryIO, layout: str) -> tuple[int, ...]:
    return struct.unpack(f"<{layout}", _read(file, struct.calcsize(f"<{layout}")))


def _read(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise _BrokenError("it ends in its head")
    return data


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
