"""Where things lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from kowalski.node import places
from kowalski.protocol.errors import ConfigError


def test_a_short_control_path_lies_in_the_data_directory() -> None:
    assert places.control_path(Path("/home/me/data")) == Path("/home/me/data/run/control.sock")


def test_a_control_path_too_long_for_a_socket_moves_and_stays_distinct() -> None:
    deep = Path("/" + "d" * 120)
    path = places.control_path(deep)
    assert len(bytes(path)) <= places.SOCKET_PATH_BYTES_MAX
    assert path == places.control_path(deep)
    assert path != places.control_path(Path("/" + "e" * 120))


def test_the_length_of_a_control_path_counts_in_bytes() -> None:
    directory = Path("/" + "é" * 45)
    assert not places.control_path(directory).is_relative_to(directory)


def test_a_data_dir_that_is_no_string_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("data_dir = 3\n")
    with pytest.raises(ConfigError, match="data_dir"):
        places.data_dir(None, {}, file)
