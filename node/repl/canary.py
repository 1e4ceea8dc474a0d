"""A cell that tries to get out: a tier is trusted only where all of its attempts fail.

The attempts are real: a file that anybody may read, listening sockets, the kernel's core_pattern.
"""

from __future__ import annotations

import json
import os
import resource
import secrets
import shutil
import socket
import stat
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path

import trio

from kowalski.node.repl.cell_run import CellOrder, CellRun
from kowalski.node.repl.egress import PROXY_PORT, Network
from kowalski.node.repl.kernel import Kernel, start_kernel
from kowalski.node.repl.kernel_source import KernelSource
from kowalski.node.repl.limits import CellLimits, SessionLimits
from kowalski.node.repl.seam import CellOutcome, SubCall, SubCallResult

PROBE_SLOT = 1023
"""Probes use a slot that no session will ever have: a host counts from 0."""

PYTHON_KERNEL = ("channel.py", "limiting.py", "asking.py", "telling_time.py", "python_kernel.py")

# Ten times what it takes on a slow machine that has much else to do.
_START_S = 20.0
_CELL_S = 20.0
_NAMESPACES = ("pid", "net", "mnt", "ipc")
_BAIT_TEXT = "nothing of value"
# Nobody but the owner and root may change it, and either may be whom the code runs as.
_BAIT_MODE = 0o644

# With "/kowalski-canary-12345678/datagrams" behind it, still an address of macOS (104 bytes).
_BAIT_PLACE_BYTES_MAX = 64


async def escapes(source: KernelSource) -> tuple[str, ...]:
    """What code in kernels of `source` could do and should not, in words; none: it is contained.

    Raises:
        RequestFailedError: `sandbox`, nothing ran at all.
    """
    nonce = secrets.token_hex(8)
    network: Network = "none" if source.egress is None else source.egress.network
    with _bait(owns_pids=source.owns_pids, network=network) as bait:
        code = (resources.files("kowalski.node.repl") / "kernels" / "canary_cell.py").read_text()
        prelude = f"NONCE = {nonce!r}\nBAIT = {bait.told!r}\n"
        _, outcome = await run_probe(source, Probe(PYTHON_KERNEL[-1], prelude + code))
        touched = bait.touched()
    lines = outcome.stdout.decode("utf-8", "replace").splitlines()
    if outcome.status != "ok" or not lines or lines[0] != nonce:
        return (f"ends with {outcome.status}: {outcome.error or 'silence'}",)
    return (*lines[1:], *touched)


@dataclass(frozen=True, slots=True)
class Probe:
    """One cell on a kernel of its own. `on_built` is given the kernel and a path inside."""

    kernel: str
    code: str
    limits: SessionLimits = field(default_factory=SessionLimits)
    timeout_s: float = _CELL_S
    further: Mapping[str, object] = field(default_factory=dict[str, object])
    on_built: Callable[[Kernel, str], Awaitable[None]] | None = None


async def run_probe(source: KernelSource, probe: Probe) -> tuple[str, CellOutcome]:
    """The language's version, and how the cell went.

    Raises:
        RequestFailedError: `sandbox`, the kernel did not come up.
    """
    started = await start_kernel(
        source, probe.kernel, limits=probe.limits, slot=PROBE_SLOT, timeout_s=_START_S
    )
    on_built = None if probe.on_built is None else partial(probe.on_built, started)
    try:
        await started.open_session({}, 0)
        run = CellRun(
            started,
            1,
            CellOrder(probe.code, probe.further, on_built),
            limits=CellLimits(),
            session_limits=probe.limits,
            timeout_s=probe.timeout_s,
            on_output=lambda _stream, _data: None,
            on_sub_calls=_no_sub_calls,
        )
        return started.version, await run.run()
    finally:
        await started.close()


@dataclass(frozen=True, slots=True)
class _Bait:
    """Things outside that any process of this machine could reach; `told` to the canary as JSON."""

    told: str
    secret: Path
    datagrams: socket.socket
    priority: int
    limit: tuple[int, int]

    def touched(self) -> tuple[str, ...]:
        """What has been done to them although nothing said that it had worked."""
        found: list[str] = []
        about = self.secret.stat()
        if stat.S_IMODE(about.st_mode) != _BAIT_MODE or about.st_size != len(_BAIT_TEXT):
            found.append("changes files of the host")
        try:
            self.datagrams.recv(1)
        except BlockingIOError:
            pass
        else:
            found.append("sends datagrams to the host")
        if os.getpriority(os.PRIO_PROCESS, 0) != self.priority:
            found.append("changes priorities of the host")
        if resource.getrlimit(resource.RLIMIT_CORE) != self.limit:
            found.append("changes limits of the host")
        return tuple(found)


def _bait_place() -> str:
    """Where the socket of a bait gets an address that it can have: `TMPDIR` may be any length."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) <= _BAIT_PLACE_BYTES_MAX else "/tmp"  # noqa: S108


@contextmanager
def _bait(*, owns_pids: bool, network: Network) -> Iterator[_Bait]:
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="kowalski-canary-", dir=_bait_place()))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        secret = folder / "secret"
        secret.write_text(_BAIT_TEXT)
        secret.chmod(_BAIT_MODE)
        tcp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        tcp.bind(("127.0.0.1", 0))
        tcp.listen(1)
        by_path = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        by_path.bind(str(folder / "socket"))
        by_path.listen(1)
        datagrams = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        datagrams.bind(str(folder / "datagrams"))
        datagrams.setblocking(False)
        for name in ("socket", "datagrams"):
            (folder / name).chmod(0o777)
        abstract = f"kowalski-canary-{secrets.token_hex(8)}"
        by_name = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        by_name.bind(f"\0{abstract}")
        by_name.listen(1)
        told = {
            "secret": str(secret),
            "port": tcp.getsockname()[1],
            "socket": str(folder / "socket"),
            "datagrams": str(folder / "datagrams"),
            "abstract": abstract,
            "pid": os.getpid(),
            "namespaces": _namespaces() if owns_pids else {},
            "proxy": 0 if network == "none" else PROXY_PORT,
        }
        priority = os.getpriority(os.PRIO_PROCESS, 0)
        limit = resource.getrlimit(resource.RLIMIT_CORE)
        yield _Bait(json.dumps(told), secret, datagrams, priority, limit)


def _namespaces() -> dict[str, str]:
    return {name: os.readlink(f"/proc/self/ns/{name}") for name in _NAMESPACES}  # noqa: PTH115


async def _no_sub_calls(calls: tuple[SubCall, ...]) -> tuple[SubCallResult, ...]:
    await trio.lowlevel.checkpoint()
    return tuple(SubCallResult(error="nobody answers during a probe") for _ in calls)
