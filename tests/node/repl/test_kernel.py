from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio

from kowalski.node.repl.canary import PYTHON_KERNEL
from kowalski.node.repl.detection import bubblewrap_here, landlock_here
from kowalski.node.repl.kernel import start_kernel
from kowalski.node.repl.languages import LANGUAGES
from kowalski.node.repl.limits import SessionLimits
from kowalski.node.repl.sandbox import LostAtStartError
from kowalski.protocol.errors import RequestFailedError
from tests.node.repl.rooms import kernel_source, sandbox_for

pytestmark = [pytest.mark.real, pytest.mark.trio]

PYTHON = PYTHON_KERNEL[-1]


async def test_a_kernel_says_its_version_and_leaves_nothing(tmp_path: Path) -> None:
    async with kernel_source(scratch_path=tmp_path) as source:
        kernel = await start_kernel(source, PYTHON, limits=SessionLimits(), slot=0, timeout_s=10)
        await kernel.close()
        assert kernel.version == ".".join(map(str, sys.version_info[:3]))
        assert [list(folder.iterdir()) for folder in tmp_path.iterdir()] == [[]]
    assert list(tmp_path.iterdir()) == []


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
    codes = {"test": compile(source, "<test>", "exec")}
    async with kernel_source(kernels=codes, scratch_path=tmp_path) as started_from:
        with pytest.raises(RequestFailedError, match=words):
            # The fork server comes up within this time, too.
            await start_kernel(started_from, "test", limits=SessionLimits(), slot=0, timeout_s=0.5)
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_an_interpreter_that_dies_at_its_start_is_told_at_once_and_not_waited_for(
    tmp_path: Path,
) -> None:
    source, starved = sandbox_for("js"), SessionLimits(processes=3)
    async with kernel_source(source, scratch_path=tmp_path) as started_from:
        # Its threads are more than it may have.
        with pytest.raises(LostAtStartError, match="ended before it was ready"):
            await start_kernel(
                started_from, LANGUAGES["js"].kernel[-1], limits=starved, slot=0, timeout_s=30
            )


async def test_a_kernel_cannot_speak_of_files_that_are_not_its_sessions_own(
    tmp_path: Path,
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    for sandbox in (landlock_here(), bubblewrap_here()):
        if isinstance(sandbox, str):
            continue
        async with kernel_source(sandbox) as source:
            kernel = await start_kernel(
                source, PYTHON, limits=SessionLimits(), slot=0, timeout_s=10
            )
            try:
                for path in (str(secret), f"/tmp/../{secret}", "/etc/passwd", "secret"):
                    found = kernel.read(path, bytes_max=99)
                    assert found is None or b"nologin" in found
                assert kernel.read(f"{kernel.places.job}/none", bytes_max=99) is None
            finally:
                await kernel.close()


async def test_inputs_are_linked_where_possible_and_never_changed(tmp_path: Path) -> None:
    public, private = tmp_path / "public", tmp_path / "private"
    for path, mode in ((public, 0o644), (private, 0o600)):
        path.write_text("text")
        path.chmod(mode)
    async with kernel_source(scratch_path=tmp_path) as source:
        kernel = await start_kernel(source, PYTHON, limits=SessionLimits(), slot=0, timeout_s=10)
        await kernel.open_session({"a": public, "b": private, "../c": public}, 0)
        shown = {path.name: path for path in (kernel.folder / "inputs").iterdir()}
        assert set(shown) == {"a", "b", "2"}
        assert shown["a"].samefile(public)
        assert not shown["b"].samefile(private)
        await kernel.close()
    assert public.read_text() == private.read_text() == "text"
    assert private.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["private", "public"]
