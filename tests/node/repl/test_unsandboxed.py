from __future__ import annotations

from pathlib import Path

import pytest
import trio

from kowalski.node.repl.sandbox import interpreter_prefix
from kowalski.node.repl.unsandboxed import Unsandboxed
from tests.node.repl.rooms import Talk, real_host, until

pytestmark = [pytest.mark.real, pytest.mark.trio]


def unsandboxed() -> Unsandboxed:
    return Unsandboxed(interpreter_prefix()[1])


async def test_cells_run_and_keep_state_with_inputs_and_artefacts(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("text")
    async with real_host(sandbox=unsandboxed()) as host:
        assert host.tier == "none"
        cell = Talk(await host.open("python", {"in": tmp_path / "in"}, 0))
        await cell("x = context.upper()\nopen('out', 'w').write(x)")
        assert (await cell("x")).value == "'TEXT'"
        (artefact,) = (await cell.session.collect(files_max=5, bytes_max=100)).files
        assert (artefact.name, artefact.data) == ("out", b"TEXT")
        bash = Talk(await host.open("bash", {}, 0))
        assert (await bash("echo hello")).stdout == b"hello\n"


async def test_our_environment_stays_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    async with real_host(sandbox=unsandboxed()) as host:
        cell = Talk(await host.open("python", {}, 0))
        assert (await cell("import os; 'SECRET_TOKEN' in os.environ")).value == "False"


async def test_a_deaf_cell_is_killed_with_its_children() -> None:
    async with real_host(sandbox=unsandboxed()) as host:
        cell = Talk(await host.open("python", {}, 0))
        with trio.fail_after(10):
            killed = await cell(
                "import signal, subprocess\n"
                "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
                "p = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
                "print(p.pid, flush=True)\n"
                "while True: pass",
                timeout_s=0.5,
            )
        assert (killed.status, killed.session_alive) == ("timeout", False)
        child = int(killed.stdout)
        await until(lambda: not alive(child))


async def test_an_interrupt_keeps_the_state() -> None:
    async with real_host(sandbox=unsandboxed()) as host:
        cell = Talk(await host.open("python", {}, 0))
        stopped = await cell("x = 1\nwhile True: pass", timeout_s=0.3)
        assert (stopped.status, stopped.session_alive) == ("timeout", True)
        assert (await cell("x")).value == "1"


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0]
    except OSError:
        return False
