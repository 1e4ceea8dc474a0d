from __future__ import annotations

from pathlib import Path

from kowalski.node.repl.file_view import FileView, file_view


def test_the_view_of_this_machine_has_programs_and_nothing_of_anybodys_own() -> None:
    view = file_view([])
    places = {place for _, place in view.binds} | {place for _, place in view.links}
    assert {"/usr", "/bin", "/lib"} <= places
    own = ("/home", "/root", "/var", "/run", "/sys", "/etc/shadow", "/etc/ssh", "/etc/passwd")
    assert not places & set(own)
    assert b"nologin" in view.texts["/etc/passwd"]


def test_merged_folders_are_links_and_others_are_shown(tmp_path: Path) -> None:
    for name in ("usr/bin", "lib"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    view = file_view([], system=tmp_path)
    assert view.links == (("usr/bin", "/bin"),)
    assert view.binds == ((str(tmp_path / "usr"), "/usr"), (str(tmp_path / "lib"), "/lib"))


def test_what_a_link_leads_to_is_shown_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "usr").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "usr" / "zone").write_text("")
    (tmp_path / "etc" / "localtime").symlink_to(tmp_path / "usr" / "zone")
    assert (str(tmp_path / "usr" / "zone"), "/etc/localtime") in file_view(
        [], system=tmp_path
    ).binds


def test_shown_paths_appear_once_and_not_when_they_are_there_already(tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    (prefix / "bin").mkdir(parents=True)
    view = file_view([prefix, prefix / "bin", Path("/usr/bin"), tmp_path / "missing"])
    shown = [place for source, place in view.binds if source.startswith(str(tmp_path))]
    assert shown == [str(prefix)]


def test_folders_are_those_that_must_be_made_parents_first() -> None:
    view = FileView(
        (("/usr", "/usr"), ("/x", "/root/.pyenv/versions/3"), ("/y", "/usr/lib/z")),
        (),
        {"/etc/passwd": b""},
    )
    assert view.folders() == ("/etc", "/root", "/root/.pyenv", "/root/.pyenv/versions")
