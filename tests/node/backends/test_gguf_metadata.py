"""The heads of GGUF files, sound and broken."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kowalski.node.backends.gguf_metadata import GgufMetadata, read_metadata
from kowalski.protocol.errors import ConfigError
from tests.tiny_gguf import CONTEXT_TOKENS, make_tiny_gguf


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    make_tiny_gguf(path)
    return path


def test_a_model_tells_its_kind_its_context_and_its_size(tiny: Path) -> None:
    found = read_metadata(tiny)
    assert found == GgufMetadata(
        "llama", "tiny-random", CONTEXT_TOKENS, pools=False, size_bytes=tiny.stat().st_size
    )
    assert not found.only_embeds


def test_an_encoder_pools_and_only_embeds(tmp_path: Path) -> None:
    path = tmp_path / "bert.gguf"
    writer = gguf.GGUFWriter(path, "nomic-bert")
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_array("general.tags", ["a", "b"])
    writer.add_bool("some.switch", val=True)
    writer.add_float64("some.number", 0.5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    found = read_metadata(path)
    assert (found.architecture, found.pools, found.only_embeds) == ("nomic-bert", True, True)
    assert found.context_tokens is None


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model file .*no\.gguf: No such file or directory"):
        read_metadata(tmp_path / "no.gguf")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it ends in its head|it does not begin"),
        (b"PK\x03\x04 a zip", "it does not begin with GGUF"),
        (b"GGUF" + struct.pack("<I", 99), "version 99; known are 2 and 3"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "keys"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 60), "a text of"),
        (b"GGUF" + struct.pack("<IQQQ4sI", 3, 0, 1, 4, b"name", 77), "a value of type 77"),
        (b"GGUF" + struct.pack("<IQQQ4sIIQ", 3, 0, 1, 4, b"name", 9, 4, 1 << 60), "an array of"),
        (b"GGUF" + struct.pack("<IQQQ4sI", 3, 0, 1, 4, b"name", 9), "it ends in its head"),
    ],
)
def test_what_is_no_gguf_is_told_in_one_line(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=words) as caught:
        read_metadata(path)
    assert "is no GGUF file" in str(caught.value)


def test_a_head_that_is_cut_or_changed_anywhere_does_no_harm(tiny: Path, tmp_path: Path) -> None:
    data = tiny.read_bytes()[:16_384]
    path = tmp_path / "x.gguf"

    @settings(max_examples=200, deadline=None)
    @given(st.integers(0, 2000), st.binary(max_size=16), st.integers(0, len(data)))
    def holds(at: int, other: bytes, length: int) -> None:
        path.write_bytes((data[:at] + other + data[at + len(other) :])[:length])
        with contextlib.suppress(ConfigError):
            read_metadata(path)

    holds()
