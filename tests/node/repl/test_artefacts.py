from __future__ import annotations

import os
from pathlib import Path

import pytest

from kowalski.node.repl.artefacts import collect_artefacts, is_bare, read_inside
from kowalski.node.repl.seam import Artefact, Collected
from tests.node.repl.rooms import real_host, talk_to


def collect(folder: Path, *, files_max: int = 100, bytes_max: int = 10_000) -> list[str]:
    found = collect_artefacts(folder, files_max=files_max, bytes_max=bytes_max)
    return [artefact.name for artefact in found.collected.files]


def test_files_come_sorted_with_their_relative_names(tmp_path: Path) -> None:
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "b").write_bytes(b"2")
    (tmp_path / "sub" / "deep" / "a").write_bytes(b"1")
    assert collect_artefacts(tmp_path, files_max=9, bytes_max=9).collected == Collected(
        (Artefact("b", b"2"), Artefact("sub/deep/a", b"1"))
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
    assert collect_artefacts(tmp_path, files_max=2, bytes_max=1000).collected.omitted == 3


def test_only_what_is_new_or_changed_is_collected_again(tmp_path: Path) -> None:
    for name in ("same", "grown", "replaced"):
        (tmp_path / name).write_text(name)
    known = collect_artefacts(tmp_path, files_max=9, bytes_max=99).stamps
    (tmp_path / "grown").write_text("grown more")
    (tmp_path / "new").write_text("new")
    (tmp_path / "replaced").unlink()
    (tmp_path / "other").write_text("replaced")
    (tmp_path / "other").rename(tmp_path / "replaced")
    again = collect_artefacts(tmp_path, files_max=9, bytes_max=99, known=known)
    names = [artefact.name for artefact in again.collected.files]
    assert {"grown", "new"} <= set(names) <= {"grown", "new", "replaced"}
    assert set(again.stamps) == {"same", "grown", "new", "replaced"}


def test_hidden_files_are_left_out_and_names_that_no_message_can_carry_are_counted(
    tmp_path: Path,
) -> None:
    (tmp_path / ".cache" / "x").mkdir(parents=True)
    for name in (".cache/x/file", ".hidden", "line\nbreak", "x" * 255, "fine"):
        (tmp_path / name).write_text("")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "m.pyc").write_text("")
    (tmp_path / "long").mkdir()
    (tmp_path / "long" / ("y" * 252)).write_text("")
    os.mkfifo(tmp_path / "pipe\nline")
    deep = tmp_path.joinpath(*("d" * 18))
    deep.mkdir(parents=True)
    (deep / "file").write_text("")
    assert collect(tmp_path) == ["fine", "x" * 255]
    found = collect_artefacts(tmp_path, files_max=9, bytes_max=99)
    assert found.collected.omitted == 3, "a line break, a long path, what lies too deep"
    again = collect_artefacts(tmp_path, files_max=9, bytes_max=99, known=found.stamps)
    assert again.collected.omitted == 0, "told before"


def test_a_glance_tells_an_empty_folder(tmp_path: Path) -> None:
    assert is_bare(tmp_path)
    assert is_bare(tmp_path / "gone")
    for number in range(63):
        (tmp_path / f".{number}").touch()
    assert is_bare(tmp_path)
    (tmp_path / ".63").touch()
    assert not is_bare(tmp_path)  # nobody looked further
    (tmp_path / "file").touch()
    assert not is_bare(tmp_path)


def test_one_file_inside_is_read_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "tmp" / "cells").mkdir(parents=True)
    (tmp_path / "tmp" / "cells" / "program").write_bytes(b"elf")
    (tmp_path / "tmp" / "link").symlink_to("cells")
    assert read_inside(tmp_path, "/tmp/cells/program", bytes_max=3) == b"elf"
    assert read_inside(tmp_path, "/tmp/cells/program", bytes_max=2) is None
    for path in ("/tmp/link/program", "/tmp/cells", "/tmp", "/gone/x", "/tmp/../etc/passwd"):
        assert read_inside(tmp_path, path, bytes_max=99) is None


def test_a_name_that_is_no_text_is_left_out(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff")).write_bytes(b"")
    (tmp_path / "text").write_bytes(b"")
    assert collect(tmp_path) == ["text"]
    assert collect_artefacts(tmp_path, files_max=9, bytes_max=99).collected.omitted == 1


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
        assert await cell.session.collect(files_max=10, bytes_max=1000) == Collected(
            (Artefact("plots/p.png", b"png"), Artefact("result.csv", b"a,b"))
        )
        assert await cell.session.collect(files_max=10, bytes_max=1000) == Collected()
        await cell("open('result.csv', 'a').write('!')")
        again = await cell.session.collect(files_max=10, bytes_max=1000)
        assert again == Collected((Artefact("result.csv", b"a,b!"),))


@pytest.mark.real
@pytest.mark.trio
async def test_a_closed_session_has_no_artefacts() -> None:
    async with real_host() as host:
        session = await host.open("python", {}, 0)
        await session.close()
        assert await session.collect(files_max=10, bytes_max=1000) == Collected()
