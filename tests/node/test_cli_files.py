from __future__ import annotations

from pathlib import Path

import click
import pytest

from kowalski.node import cli_files
from kowalski.node.cli_session import Session
from tests.node.scripted_node import Script, scripted_node


def save(folder: Path, *rows: dict[str, object], **more: object) -> None:
    session = Session(as_json=False, data_dir=None, config=None)
    cli_files.save(session, {"files": list(rows), **more}, folder)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(b"content")
    return path


def test_files_are_put_below_the_folder_and_told(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "out"
    rows = [{"name": name, "bytes": 7, "path": str(source)} for name in ("a", "sub/deep/b")]
    save(out, *rows, files_omitted=2)
    assert (out / "a").read_bytes() == (out / "sub" / "deep" / "b").read_bytes() == b"content"
    told = capsys.readouterr().err
    assert f"{out / 'a'}: 7 bytes" in told
    assert "2 more were too many, too large, or have names that are no plain text" in told


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", "a//b", "."])
def test_a_name_that_leads_elsewhere_is_refused(
    tmp_path: Path, source: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "out", {"name": name, "path": str(source)})
    assert list((tmp_path / "out").iterdir()) == []
    assert not (tmp_path / "x").exists()
    assert "not saved" in capsys.readouterr().err


def test_no_link_is_followed_on_the_way_or_at_its_end(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (elsewhere / "file").write_text("mine")
    (out / "folder").symlink_to(elsewhere)
    (out / "link").symlink_to(elsewhere / "file")
    save(out, *({"name": name, "path": str(source)} for name in ("folder/file", "link", "fine")))
    assert (elsewhere / "file").read_text() == "mine"
    assert (out / "fine").read_bytes() == b"content"
    assert capsys.readouterr().err.count("not saved") == 2


def test_what_cannot_be_had_is_told_beside_the_rest(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone: dict[str, object] = {"name": "gone", "error": "content abc: nobody has it"}
    rows = [gone, {"name": "lost", "path": "/no"}]
    save(tmp_path / "out", *rows, {"name": "here", "bytes": 7, "path": str(source)})
    told = capsys.readouterr().err
    assert "nobody has it" in told
    assert (tmp_path / "out" / "here").exists()
    save(tmp_path / "out")
    assert "it left no files" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_a_mistake_in_usage(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(click.UsageError, match=r"file exists|not a directory"):
        save(tmp_path / "file")


def test_files_of_a_task_are_asked_of_the_node(tmp_path: Path, source: Path) -> None:
    script = Script({"files": [{"name": "a", "bytes": 7, "path": str(source)}]})
    with scripted_node(tmp_path, {"files": script}) as node:
        session = Session(as_json=False, data_dir=tmp_path, config=None)
        cli_files.save_task_files(session, "T1", tmp_path / "out")
    assert node.heard == [("files", {"task": "T1"})]
    assert (tmp_path / "out" / "a").read_bytes() == b"content"
