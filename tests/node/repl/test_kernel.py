from __future__ import annotations

import marshal
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from kowalski.node.repl.canary import PYTHON_KERNEL
from kowalski.node.repl.kernel import KernelImage, kernel_image, remove_leftovers, start_kernel
from kowalski.node.repl.limits import SessionLimits
from kowalski.protocol.errors import RequestFailedError
from tests.node.repl.rooms import sandbox_here

pytestmark = [pytest.mark.real]


async def start(tmp_path: Path, image: KernelImage, *, timeout_s: float = 10.0) -> str:
    kernel = await start_kernel(
        sandbox_here(),
        image,
        limits=SessionLimits(),
        slot=0,
        scratch=tmp_path,
        timeout_s=timeout_s,
    )
    await kernel.close()
    return kernel.version


def image_of(source: str) -> KernelImage:
    header = kernel_image("channel.py").code[:16]
    return KernelImage(header + marshal.dumps(compile(source, "<test>", "exec")))


def test_an_image_is_what_the_interpreter_runs_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "image.pyc").write_bytes(image_of("print('ran')").code)
    assert subprocess.check_output([sys.executable, tmp_path / "image.pyc"]) == b"ran\n"


@pytest.mark.trio
async def test_a_kernel_says_its_version_and_leaves_nothing(tmp_path: Path) -> None:
    version = await start(tmp_path, kernel_image(*PYTHON_KERNEL))
    assert version == ".".join(map(str, sys.version_info[:3]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.trio
@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import sys; sys.exit('my last words')", "my last words"),
        ("import time; time.sleep(60)", "no kernel within 0.5 s"),
        ("import os, sys; os.write(int(sys.argv[1]), b'\\0\\0\\0\\2{}')", "did not start"),
    ],
)
async def test_a_kernel_that_does_not_come_up_is_told_in_its_words_and_leaves_nothing(
    tmp_path: Path, source: str, words: str
) -> None:
    await trio.to_thread.run_sync(lambda: None)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(RequestFailedError, match=words):
        await start(tmp_path, image_of(source), timeout_s=0.5)
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_folders_of_a_killed_node_are_removed_and_those_of_a_living_one_kept(
    tmp_path: Path,
) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    for name in (f"kowalski-session-{ended.pid}-a", f"kowalski-session-{os.getpid()}-b", "other"):
        (tmp_path / name / "job").mkdir(parents=True)
    remove_leftovers(tmp_path)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [f"kowalski-session-{os.getpid()}-b", "other"]


@pytest.mark.trio
async def test_inputs_are_linked_where_possible_and_never_changed(tmp_path: Path) -> None:
    public, private = tmp_path / "public", tmp_path / "private"
    for path, mode in ((public, 0o644), (private, 0o600)):
        path.write_text("text")
        path.chmod(mode)
    kernel = await start_kernel(
        sandbox_here(),
        kernel_image(*PYTHON_KERNEL),
        limits=SessionLimits(),
        slot=0,
        scratch=tmp_path,
        timeout_s=10,
    )
    await kernel.open_session({"a": public, "b": private, "../c": public}, 0)
    shown = {path.name: path for path in (kernel.folder / "inputs").iterdir()}
    assert set(shown) == {"a", "b", "2"}
    assert shown["a"].samefile(public)
    assert not shown["b"].samefile(private)
    await kernel.close()
    assert public.read_text() == private.read_text() == "text"
    assert private.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["private", "public"]
