"""What can be installed, and what is told of what cannot. Nothing here needs a network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import environments
from benchmarks.environments import PEERS, STAMP, Absent, Debian, Installed, Peer, install
from benchmarks.scenarios import SCENARIOS


def test_what_cannot_be_installed_is_told_with_the_reason_and_tried_again(tmp_path: Path) -> None:
    peer = Peer("nothing", "a test", (str(tmp_path / "no-such-package"),))
    for _ in range(2):
        absent = install(peer, tmp_path)
        assert isinstance(absent, Absent)
        assert absent.reason.startswith("uv pip: ")
        assert "no-such-package" in absent.reason
    assert not (tmp_path / "nothing" / STAMP).exists()


def test_what_was_installed_is_not_installed_again_until_something_else_is_wanted(
    tmp_path: Path,
) -> None:
    peer = Peer("thing", "a test", ("thing==1.2",))
    folder = tmp_path / "thing"
    folder.mkdir()
    wanted = {"requirements": ["thing==1.2"], "npm": None}
    (folder / STAMP).write_text(json.dumps({"wanted": wanted, "version": "1.2"}))
    there = install(peer, tmp_path)
    assert there == Installed(peer, "1.2", folder / "venv" / "bin" / "python")
    other = Peer("thing", "a test", (str(tmp_path / "no-such-package"),))
    assert isinstance(install(other, tmp_path), Absent)


def test_a_program_on_the_path_is_taken(tmp_path: Path) -> None:
    shell = shutil.which("sh")
    assert shell is not None
    found = install(Peer("shell", "a test", debian=(Debian("sh", ("dash",)),)), tmp_path)
    assert isinstance(found, Installed)
    assert found.programs == {"sh": Path(shell)}
    assert found.program == Path(shell)
    assert found.version


def test_without_apt_a_program_that_is_not_there_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    absent = install(Peer("x", "a test", debian=(Debian("no-such-program", ("x",)),)), tmp_path)
    assert isinstance(absent, Absent)
    assert absent.reason == "no no-such-program on the path, and no apt-get"
    absent = install(Peer("y", "a test", npm="y@1"), tmp_path)
    assert isinstance(absent, Absent)
    assert absent.reason == "no npm on the path"


def test_the_cache_is_where_its_owner_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert environments.cache_folder() == Path("/x/kowalski-benchmarks")
    monkeypatch.setenv(environments.CACHE, "/y")
    assert environments.cache_folder() == Path("/y")


def test_every_peer_is_pinned_and_has_somewhere_to_come_from() -> None:
    for peer in PEERS:
        assert peer.requirements or peer.npm or peer.debian, peer
        assert all("==" in one for one in peer.requirements[:1]), peer
        assert peer.npm is None or peer.npm.count("@") >= 1, peer


def test_every_scenario_is_a_module_and_compares_with_peers_that_there_are() -> None:
    root = Path(environments.__file__).parent
    assert len({one.name for one in SCENARIOS}) == len(SCENARIOS)
    for scenario in SCENARIOS:
        assert (root / f"{scenario.name}.py").exists()
        assert set(scenario.peers) <= set(environments.BY_NAME)
    programs = [path for path in root.glob("*.py") if '== "__main__"' in path.read_text()]
    on_disk = {path.stem for path in programs}
    helpers = {"__main__", "cell_peers", "cell_nats", "rlm_peers"}
    assert not (on_disk - helpers) - {one.name for one in SCENARIOS}, "give it a line in SCENARIOS"
