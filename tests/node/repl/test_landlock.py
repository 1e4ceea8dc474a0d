from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from kowalski.node.repl.detection import landlock_here
from kowalski.node.repl.file_view import FileView
from kowalski.node.repl.kernel import start_kernel
from kowalski.node.repl.landlock import (
    PARTS,
    VERSION_MIN,
    VERSION_MIN_AS_ROOT,
    LandlockSandbox,
)
from kowalski.node.repl.limits import Limits, SessionLimits
from kowalski.node.repl.sandbox import Folders, ServerPlan
from kowalski.protocol.errors import RequestFailedError
from tests.node.repl.rooms import Talk, kernel_source, real_host

MIB = 1024 * 1024


def sandbox(*, as_root: bool) -> LandlockSandbox:
    view = FileView((("/usr", "/usr"), ("/opt/x", "/opt/x")), (), {})
    return LandlockSandbox("python", "/usr/bin", view, as_root, 7000, b"")


def test_a_session_of_roots_node_has_a_uid_of_its_own(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "i", tmp_path / "j", tmp_path / "t")
    for as_root, uid in ((True, 7003), (False, None)):
        order = sandbox(as_root=as_root).order(
            limits=SessionLimits(), folders=folders, scratch=tmp_path, slot=3
        )
        assert order["uid"] == uid
        assert order["work"] == [str(folders.job), str(folders.temporary)]


def test_what_is_needed_of_the_system_depends_on_whose_processes_are_in_reach() -> None:
    for as_root, version in ((True, VERSION_MIN_AS_ROOT), (False, VERSION_MIN)):
        settings = sandbox(as_root=as_root).plan(Path("/x")).settings
        assert settings["version_min"] == version
        readable = settings["readable"]
        assert isinstance(readable, list)
        assert {"/usr", "/opt/x", "/proc/meminfo"} <= set(readable)
        assert "/proc" not in readable


def test_its_fork_server_confines_by_landlock() -> None:
    assert "landlocked.py" in PARTS
    assert "namespaced.py" not in PARTS


class Demanding(LandlockSandbox):
    """Asks for more than any system has."""

    def plan(self, scratch: Path) -> ServerPlan:
        plan = super().plan(scratch)
        return replace(plan, settings={**plan.settings, "version_min": 99})


@pytest.mark.real
@pytest.mark.trio
async def test_too_old_a_system_is_said_to_be_so() -> None:
    here = landlock_here()
    if isinstance(here, str):
        pytest.skip(here)
    values = {each.name: getattr(here, each.name) for each in fields(here)}
    async with kernel_source(Demanding(**values)) as source:
        with pytest.raises(RequestFailedError, match=r"99 is needed|Function not implemented"):
            await start_kernel(
                source, "python_kernel.py", limits=SessionLimits(), slot=0, timeout_s=10
            )


@pytest.mark.real
@pytest.mark.trio
async def test_what_is_stored_is_bounded_though_it_is_on_the_disk() -> None:
    here = landlock_here()
    if isinstance(here, str):
        pytest.skip(here)
    limits = Limits(session=SessionLimits(folder_bytes=4 * MIB))
    async with real_host(sandbox=here, limits=limits) as host:
        cell = Talk(await host.open("python", {}, 0))
        stopped = await cell(
            "import time\n"
            "for i in range(30): open(str(i), 'wb').write(b'x' * (1 << 20))\n"
            "time.sleep(60)"
        )
        assert (stopped.status, stopped.session_alive) == ("inodes", False)
        assert "8 MiB in them" in (stopped.error or "")
