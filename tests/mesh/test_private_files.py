import os
import stat
from pathlib import Path

import pytest

from kowalski.mesh.private_files import write_private
from kowalski.protocol.errors import ConfigError


def test_only_the_owner_may_read_the_file_and_a_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secret"
    before = os.umask(0)
    try:
        write_private(path, b"secret")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_open_to_others_is_closed_by_replacing_it(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"old")
    path.chmod(0o644)
    with path.open("rb") as old:
        write_private(path, b"new")
        assert old.read() == b"old", "written in place, so that a reader may see half of it"
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_but_the_file_is_left_behind(tmp_path: Path) -> None:
    write_private(tmp_path / "secret", b"1")
    write_private(tmp_path / "secret", b"2")
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_what_cannot_be_written_is_the_owners_to_hear_and_leaves_no_draft(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "full").touch()
    with pytest.raises(ConfigError, match=r"folder cannot be written: Is a directory"):
        write_private(tmp_path / "folder", b"x")
    with pytest.raises(ConfigError, match=r"full/below cannot be written: File exists"):
        write_private(tmp_path / "folder" / "full" / "below", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
