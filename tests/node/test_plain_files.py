"""Files that a node is told to read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kowalski.node.plain_files import check_is_plain, read_text
from kowalski.protocol.errors import ConfigError

pytestmark = pytest.mark.trio


async def test_a_file_is_read_as_text_whatever_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "it"
    path.write_bytes(b"caf\xc3\xa9 \xff")
    assert await read_text(path, bytes_max=7) == "caf\u00e9 \ufffd"
    assert await check_is_plain(path) == 7
    (tmp_path / "link").symlink_to(path)
    assert await check_is_plain(tmp_path / "link") == 7


async def test_a_file_beyond_the_bound_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "it"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(ConfigError, match="it: 1099511627776 bytes; at most 1000"):
        await read_text(path, bytes_max=1000)


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "device"])
async def test_what_is_no_plain_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it"
    words = "not a plain file"
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "device":
            path = Path("/dev/zero")
        case _:
            words = "No such file"
    with pytest.raises(ConfigError, match=f"{path}: {words}"):
        await read_text(path, bytes_max=1000)
    with pytest.raises(OSError, match=words):
        await check_is_plain(path)
