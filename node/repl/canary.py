"""A cell that tries to get out: a tier is trusted only where all of its attempts fail.

The attempts are real: a file that anybody may read, listening sockets, the kernel's core_pattern.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import resources
from pathlib import Path

import trio

from kowalski.node.repl.cell_run import CellRun
from kowalski.node.repl.kernel import start_kernel
from kowalski.node.repl.kernel_source import KernelSource
from kowalski.node.repl.limits import CellLimits, SessionLimits
from kowalski.node.repl.seam import CellOutcome, SubCall, SubCallResult

PROBE_SLOT = 63
"""Probes use a slot that no session will ever have: a host counts from 0."""

PYTHON_KERNEL = ("channel.py", "limiting.py", "asking.py", "python_kernel.py")

_START_S = 10.0
_CELL_S = 10.0
_NAMESPACES = ("pid", "net", "mnt", "ipc")


async def escapes(source: KernelSource) -> tuple[str, ...]:
    """What code in kernels of `source` could do and should not, in words; none: it is contained.

    Raises:
        RequestFailedError: `sandbox`, nothing ran at all.
    """
    nonce = secrets.token_hex(8)
    with _bait() as bait:
        code = (resources.files("kowalski.node.repl") / "kernels" / "canary_cell.py").read_text()
        prelude = f"NONCE = {nonce!r}\nBAIT = {bait!r}\n"
        _, outcome = await run_probe(source, PYTHON_KERNEL[-1], prelude + code)
    lines = outcome.stdout.decode("utf-8", "replace").splitlines()
    if outcome.status != "ok" or not lines or lines[0] != nonce:
        return (f"ends with {outcome.status}: {outcome.error or 'silence'}",)
    return tuple(lines[1:])


async def run_probe(source: KernelSource, kernel: str, code: str) -> tuple[str, CellOutcome]:
    """The language's version, and how one cell went on a kernel of its own.

    Raises:
        RequestFailedError: `sandbox`, the kernel did not come up.
    """
    limits = SessionLimits()
    started = await start_kernel(source, kernel, limits=limits, slot=PROBE_SLOT, timeout_s=_START_S)
    try:
        await started.open_session({}, 0)
        run = CellRun(
            started,
            1,
            code,
            limits=CellLimits(),
            session_limits=limits,
            timeout_s=_CELL_S,
            on_output=lambda _stream, _data: None,
            on_sub_calls=_no_sub_calls,
        )
        return started.version, await run.run()
    finally:
        await started.close()


@contextmanager
def _bait() -> Iterator[str]:
    """Things outside that any process of this machine could reach, as JSON for the canary."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="kowalski-canary-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        secret = folder / "secret"
        secret.write_text("secret")
        secret.chmod(0o644)
        tcp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        tcp.bind(("127.0.0.1", 0))
        tcp.listen(1)
        by_path = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        by_path.bind(str(folder / "socket"))
        (folder / "socket").chmod(0o777)
        by_path.listen(1)
        abstract = f"kowalski-canary-{secrets.token_hex(8)}"
        by_name = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        by_name.bind(f"\0{abstract}")
        by_name.listen(1)
        yield json.dumps(
            {
                "secret": str(secret),
                "port": tcp.getsockname()[1],
                "socket": str(folder / "socket"),
                "abstract": abstract,
                "namespaces": {
                    name: os.readlink(f"/proc/self/ns/{name}")  # noqa: PTH115
                    for name in _NAMESPACES
                },
            }
        )


async def _no_sub_calls(calls: tuple[SubCall, ...]) -> tuple[SubCallResult, ...]:
    await trio.lowlevel.checkpoint()
    return tuple(SubCallResult(error="nobody answers during a probe") for _ in calls)
