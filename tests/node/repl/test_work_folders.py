from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kowalski.node.repl.work_folders import OwnFileSystems, WorkFolders, remove_tree


def use_of(folder: Path, *pids: int) -> tuple[int, int]:
    use = WorkFolders((folder,)).use(None, pids, inodes_max=1000)
    return use.inodes, use.stored_bytes


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))  # noqa: PTH208


def test_files_and_folders_are_counted_with_what_they_hold(tmp_path: Path) -> None:
    assert use_of(tmp_path) == (0, 0)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "file").write_bytes(b"x" * 1_000_000)
    (tmp_path / "a" / "b" / "hollow").touch()
    os.truncate(tmp_path / "a" / "b" / "hollow", 1 << 30)
    inodes, stored = use_of(tmp_path)
    assert inodes == 4
    assert 1_000_000 <= stored < 1_100_000


def test_above_the_limit_nobody_counts_further(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / str(number)).touch()
    assert WorkFolders((tmp_path,)).use(None, (), inodes_max=5).inodes == 5
    assert WorkFolders((tmp_path,)).use(None, (), inodes_max=4).inodes > 4


def test_links_are_counted_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "everything").symlink_to("/")
    assert use_of(tmp_path)[0] == 1


def test_a_missing_folder_holds_nothing(tmp_path: Path) -> None:
    assert use_of(tmp_path / "gone") == (0, 0)


def test_too_deep_a_tree_counts_as_full_and_costs_no_descriptor(tmp_path: Path) -> None:
    before = descriptors()
    dig(tmp_path, 100)
    assert use_of(tmp_path)[0] == sys.maxsize
    assert descriptors() == before


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc here")
def test_a_file_without_a_name_is_counted_while_somebody_holds_it(tmp_path: Path) -> None:
    program = (
        "import os, sys, tempfile\n"
        "f = tempfile.TemporaryFile(dir=sys.argv[1]); f.write(b'x' * 3_000_000); f.flush()\n"
        "g = os.dup(f.fileno()); print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        inodes, stored = use_of(tmp_path, holder.pid)
        assert inodes == 1
        assert 3_000_000 <= stored < 3_100_000
        assert use_of(tmp_path) == (0, 0)
        holder.communicate()


def test_file_systems_of_a_sessions_own_are_asked_for_their_files() -> None:
    use = OwnFileSystems().use(Path("/"), (), inodes_max=1000)
    assert use.inodes > 0
    assert use.stored_bytes == 0
    assert OwnFileSystems().use(None, (), inodes_max=1000).inodes == 0


@pytest.mark.parametrize("depth", [3, 3000])
def test_a_tree_is_removed_however_deep_and_whatever_its_rights(tmp_path: Path, depth: int) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "closed" / "inner").mkdir(parents=True)
    (tree / "closed" / "inner" / "file").touch()
    (tree / "link").symlink_to(tmp_path)
    dig(tree, depth)
    (tree / "closed").chmod(0)
    remove_tree(tree)
    assert list(tmp_path.iterdir()) == []
    remove_tree(tree)


def dig(folder: Path, depth: int) -> None:
    program = "import os\nfor _ in range(int(os.sys.argv[1])): os.mkdir('d'); os.chdir('d')"
    subprocess.run([sys.executable, "-c", program, str(depth)], cwd=folder, check=True)
