from __future__ import annotations

import os
from pathlib import Path

import pytest

from kowalski.node.repl.artefacts import collect_artefacts
from kowalski.node.repl.seam import Artefact
from tests.node.repl.rooms import real_host, talk_to


def collect(folder: Path, *, files_max: int = 100, bytes_max: int = 10_000) -> list[str]:
    found = collect_artefacts(folder, files_max=files_max, bytes_max=bytes_max)
    return [artefact.name for artefact in found]


def test_files_come_sorted_with_their_relative_names(tmp_path: Path) -> None:
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "b").write_bytes(b"2")
    (tmp_path / "sub" / "deep" / "a").write_bytes(b"1")
    assert collect_artefacts(tmp_path, files_max=9, bytes_max=9) == (
        Artefact("b", b"2"),
        Artefact("sub/deep/a", b"1"),
    )


def test_links_pipes_and_sockets_are_left_alone(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    (outside / "folder").mkdir(parents=True)
    inside.mkdir()
    (outside / "secret").write_text("secret")
    (outside / "folder" / "secret").write_text("secret")
    (inside / "symlink").symlink_to(outside / "secret")
    (inside / "folder").symlink_to(outside / "folder")
    (inside / "hardlink").hardlink_to(outside / "secret")
    os.mkfifo(inside / "pipe")
    (inside / "fine").write_text("fine")
    assert collect(inside) == ["fine"]


def test_a_folder_that_is_itself_a_link_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(OSError, match="link"):
        collect(tmp_path / "link")


def test_both_limits_hold(tmp_path: Path) -> None:
    for index in range(5):
        (tmp_path / f"{index}").write_bytes(b"x" * 10)
    (tmp_path / "1").write_bytes(b"x" * 1000)
    assert collect(tmp_path, files_max=2) == ["0", "1"]
    assert collect(tmp_path, bytes_max=25) == ["0", "2"]
    assert collect(tmp_path, files_max=0) == []


def test_a_name_that_is_no_text_is_left_out(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff")).write_bytes(b"")
    (tmp_path / "text").write_bytes(b"")
    assert collect(tmp_path) == ["text"]


@pytest.mark.real
@pytest.mark.trio
async def test_what_cells_left_in_the_job_folder_is_collected() -> None:
    async with talk_to() as cell:
        await cell(
            "import os\n"
            "open('result.csv', 'w').write('a,b')\n"
            "os.mkdir('plots'); open('plots/p.png', 'wb').write(b'png')\n"
            "os.symlink('/etc/passwd', 'stolen'); os.mkfifo('pipe')\n"
            "os.symlink('/proc/1/root', 'root'); open('/tmp/elsewhere', 'w').write('x')\n"
            "raise SystemExit(2)"
        )
        assert await cell.session.collect(files_max=10, bytes_max=1000) == (
            Artefact("plots/p.png", b"png"),
            Artefact("result.csv", b"a,b"),
        )


@pytest.mark.real
@pytest.mark.trio
async def test_a_closed_session_has_no_artefacts() -> None:
    async with real_host() as host:
        session = await host.open("python", {}, 0)
        await session.close()
        assert await session.collect(files_max=10, bytes_max=1000) == ()
