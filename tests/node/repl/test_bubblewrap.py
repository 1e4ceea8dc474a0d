"""What hostile cells find inside: each snippet ends with an expression that must be `contained`."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from kowalski.node.repl.bubblewrap import NamespacedSessions, PlainBubblewrap
from kowalski.node.repl.detection import plain_bubblewrap_here
from kowalski.node.repl.file_view import file_view
from kowalski.node.repl.limits import SessionLimits
from kowalski.node.repl.process_tree import tree_of
from kowalski.node.repl.sandbox import Folders
from tests.node.repl.rooms import Talk, real_host, talk_to

pytestmark = [pytest.mark.real]


def plain() -> PlainBubblewrap:
    found = plain_bubblewrap_here()
    if isinstance(found, str):
        pytest.skip(found)
    return found


TRY = """
def attempt(what, *arguments):
    try:
        found = what(*arguments)
    except (OSError, ValueError, RuntimeError, PermissionError) as error:
        return 'contained'
    return f'got {found!r}'

def harmless(fd):
    try:
        target = os.readlink(f'/proc/self/fd/{fd}')
    except OSError:
        return True
    return target.startswith(('pipe:', 'socket:', '/dev/null', '/proc/'))

import os, socket, subprocess, sys
CHILD_FDS = ' '.join(f'/proc/self/fd/{fd}' for fd in (0, 1, 2, 3))
"""


ATTEMPTS = [
    "attempt(open, SECRET)",
    "attempt(os.listdir, '/home')",
    "attempt(os.listdir, '/var')",
    "attempt(os.listdir, '/sys')",
    "attempt(os.listdir, '/run')",
    "attempt(open, '/etc/shadow')",
    "attempt(open, '/etc/machine-id')",
    "attempt(socket.create_connection, ('127.0.0.1', PORT), 1)",
    "attempt(socket.create_connection, ('1.1.1.1', 53), 1)",
    "attempt(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)",
    "attempt(socket.socket, 40, socket.SOCK_STREAM)",
    "attempt(socket.socket, 16, socket.SOCK_RAW)",
    "attempt(socket.socket, 17, socket.SOCK_RAW)",
    "attempt(os.open, '/proc/sys/kernel/core_pattern', os.O_WRONLY)",
    "attempt(os.open, '/proc/sys/vm/overcommit_memory', os.O_WRONLY)",
    "attempt(os.open, '/proc/sysrq-trigger', os.O_WRONLY)",
    "attempt(os.open, '/proc/1/mem', os.O_RDWR)",
    "attempt(os.open, '/dev/mem', os.O_RDONLY)",
    "attempt(os.open, '/dev/kvm', os.O_RDWR)",
    "attempt(os.mkdir, '/new')",
    "attempt(os.mkdir, '/usr/new')",
    "attempt(os.mkdir, '/dev/new')",
    "attempt(os.mkdir, '/inputs/new')",
    "attempt(os.kill, HOST_PID, 0)",
    "(os.kill(1, 9), 'contained')[1]",
    "attempt(os.memfd_create, 'x')",
    "attempt(os.chroot, '/tmp')",
    "attempt(os.setuid, 0)",
    "attempt(os.nice, -5)",
    "'contained' if not os.environ.keys() & {'SECRET_TOKEN', 'SSH_AUTH_SOCK'} else 'environ'",
    "'contained' if all(map(harmless, os.listdir('/proc/self/fd'))) else 'descriptors'",
    "'contained' if subprocess.getoutput('echo /proc/self/fd/*') == CHILD_FDS else 'more'",
    "'contained' if '/work' not in open('/proc/1/cmdline').read() else 'paths'",
    "'contained' if len([p for p in os.listdir('/proc') if p.isdigit()]) < 6 else 'pids'",
]


@pytest.mark.trio
async def test_no_attempt_to_get_out_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "secret").chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        bait = f"SECRET = {str(tmp_path / 'secret')!r}; PORT = {listening.getsockname()[1]}"
        async with talk_to() as cell:
            await cell(f"{TRY}\n{bait}; HOST_PID = {os.getpid()}")
            found = {attempt: await cell(attempt) for attempt in ATTEMPTS}
    assert {
        attempt: outcome.value or outcome.error
        for attempt, outcome in found.items()
        if outcome.value != "'contained'"
    } == {}


CALLS = [
    "libc.ptrace(16, 1, 0, 0)",
    "libc.unshare(0x10000000)",
    "libc.unshare(0x20000)",
    "libc.mount(b'none', b'/tmp', b'tmpfs', 0, 0)",
    "libc.umount2(b'/proc', 2)",
    "libc.shmget(0, 4096, 0o1600)",
    "libc.syscall(425, 8, ctypes.create_string_buffer(120))",
    "libc.syscall(321, 0, ctypes.create_string_buffer(120), 120)",
    "libc.syscall(323, 0)",
    "libc.syscall(298, ctypes.create_string_buffer(120), 0, -1, -1, 0)",
    "libc.syscall(250, 0, 0)",
    "libc.syscall(500)",
]


@pytest.mark.trio
async def test_system_calls_that_no_cell_needs_are_refused() -> None:
    async with talk_to() as cell:
        await cell("import ctypes; libc = ctypes.CDLL(None, use_errno=True)")
        found = {call: (await cell(call)).value for call in CALLS}
    assert found == dict.fromkeys(CALLS, "-1")


@pytest.mark.trio
async def test_no_privilege_is_left() -> None:
    async with talk_to() as cell:
        outcome = await cell(
            "status = dict(l.split(':\\t', 1) for l in open('/proc/self/status') if ':\\t' in l)\n"
            "print(*(status[k].strip() for k in ('NoNewPrivs', 'Seccomp', 'CapEff', 'CapPrm')))\n"
            "import os; print(0 in os.getresuid() + os.getresgid(), os.getgroups())"
        )
        privileges, identity = outcome.stdout.decode().splitlines()
        assert privileges == f"1 2 {'0' * 16} {'0' * 16}"
        assert identity.startswith("False")


@pytest.mark.trio
async def test_for_the_kernel_the_program_is_never_root() -> None:
    async with real_host() as host:
        cell = Talk(await host.open("python", {}, 0))
        await cell("1")
        root = cell.session._kernel.tree.root()
        assert root is not None
        inner = int(root.parent.name)
        for pid in tree_of(inner):
            status = Path(f"/proc/{pid}/status").read_text()
            uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
            assert "0" not in uids


@pytest.mark.trio
async def test_a_fork_bomb_stops_at_its_bound_and_harms_nobody_else() -> None:
    bomb = (
        "import os, time\n"
        "count = 0\n"
        "try:\n"
        "    while count < 3000:\n"
        "        if os.fork() == 0: time.sleep(60)\n"
        "        count += 1\n"
        "except OSError as error: pass\n"
        "count"
    )
    async with real_host() as host:
        one = Talk(await host.open("python", {}, 0))
        two = Talk(await host.open("python", {}, 0))
        count = int((await one(bomb)).value or "0")
        assert 20 < count < SessionLimits().processes
        assert (await two("import subprocess; subprocess.run('true').returncode")).value == "0"


@pytest.mark.trio
@pytest.mark.parametrize("folder", ["/tmp", "/job", "/dev/shm"])
async def test_a_folder_is_full_at_its_bound(folder: str) -> None:
    async with talk_to() as cell:
        outcome = await cell(
            "import os\nwritten = 0\n"
            "try:\n"
            "    for i in range(4):\n"
            f"        with open('{folder}/' + str(i), 'wb', buffering=0) as file:\n"
            "            for _ in range(40): written += file.write(b'x' * (1 << 20))\n"
            "except OSError as error: pass\n"
            "written >> 20"
        )
        assert 60 <= int(outcome.value or "0") <= 64


@pytest.mark.trio
async def test_no_file_is_larger_than_its_bound() -> None:
    async with talk_to() as cell:
        told = (await cell("open('/job/big', 'wb').truncate(1 << 30)")).error or ""
        assert "File too large" in told


@pytest.mark.trio
async def test_programs_of_the_host_run() -> None:
    async with talk_to() as cell:
        outcome = await cell(
            "import subprocess, sqlite3, tempfile, asyncio\n"
            "async def date(): return await (await asyncio.create_subprocess_exec('date')).wait()\n"
            "asyncio.run(date()), subprocess.run(['sh', '-c', 'echo a | sort']).returncode"
        )
        assert outcome.value == "(0, 0)", outcome.error


def test_everything_of_a_launch_is_closed_when_it_is_spawned(tmp_path: Path) -> None:
    sandbox = plain()
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    launch = sandbox.launch(
        ("true",), limits=SessionLimits(), folders=Folders(tmp_path, tmp_path, tmp_path), slot=0
    )
    for fd in launch.closes_after:
        os.close(fd)
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_each_slot_has_its_own_uid_when_we_are_root(tmp_path: Path) -> None:
    sessions = NamespacedSessions(path="", as_root=True, first_uid=5000, system_call_filter=b"")
    folders = Folders(tmp_path / "inputs", tmp_path, tmp_path)
    limits = SessionLimits()
    spawning = PlainBubblewrap("bwrap", "/usr/bin/python3", file_view([]), sessions)
    for slot in (0, 7):
        launch = spawning.launch(("true",), limits=limits, folders=folders, slot=slot)
        for fd in launch.closes_after:
            os.close(fd)
        assert f"--reuid={5000 + slot}" in launch.argv
        order = sessions.order(limits=limits, folders=folders, scratch=tmp_path, slot=slot)
        assert order["uid"] == 5000 + slot
