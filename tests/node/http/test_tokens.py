"""The token file."""

import os
from pathlib import Path

import pytest

from kowalski.node.http.tokens import TokenFile, read_token
from kowalski.protocol.errors import ConfigError


def test_a_token_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "http_token")
    assert file.current() is None
    token = file.ensure()
    assert file.ensure() == token == file.current()
    assert (tmp_path / "http_token").stat().st_mode & 0o777 == 0o600


def test_a_new_token_counts_at_once(tmp_path: Path) -> None:
    path = tmp_path / "http_token"
    server = TokenFile(path)
    old = server.ensure()
    new = TokenFile(path).rotate()
    os.utime(path, ns=(1, 1))
    assert server.current() == new != old


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 40, b"x" * 600, b"a b\x00" * 10])
def test_what_is_no_token_lets_nobody_in(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "http_token"
    path.write_bytes(content)
    assert TokenFile(path).current() is None
    with pytest.raises(ConfigError, match="http_token"):
        read_token(path)
