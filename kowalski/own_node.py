"""A node for the length of a program, as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import anyio

from kowalski.errors import NetworkError
from kowalski.node import places
from kowalski.node_link import NodeLink

START_S = 60.0
STOP_S = 10.0
LOOK_S = 0.05
LOG_CHARS = 2000


@asynccontextmanager
async def open_own_node(data_dir: Path | None, options: Sequence[str]) -> AsyncIterator[Path]:
    """Start a node and yield its data directory once it answers; stopped when the block is left.

    Raises:
        NetworkError: it did not come up; the message has the end of what it wrote.
    """
    with ExitStack() as stack:
        if data_dir is None:
            # Not removed before the node has gone.
            made = stack.enter_context(tempfile.TemporaryDirectory(prefix="kowalski-"))
            data_dir = Path(made) / "node"
        data_dir = places.absolute(data_dir)
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        log_path = data_dir / "node.log"
        command = [sys.executable, "-m", "kowalski.node", "start", "--data-dir", str(data_dir)]
        command += ["--p2p-port", "0", "--http-port", "0", "--listen-host", "127.0.0.1"]
        command += ["--no-mdns", "--until-stdin-ends", *options]
        with log_path.open("ab") as log:
            # Its stdin ends with this program, however that ends.
            process = subprocess.Popen(  # noqa: ASYNC220 returns at once
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=_environment()
            )
        try:
            await _until_up(process, data_dir, log_path)
            yield data_dir
        finally:
            with anyio.CancelScope(shield=True):
                await _stop(process)


def _environment() -> dict[str, str]:
    """Without the settings of a node that somebody else runs here."""
    own = ("KOWALSKI_PEER", "KOWALSKI_NAME", "KOWALSKI_DATA_DIR", "KOWALSKI_CONFIG")
    return {name: value for name, value in os.environ.items() if not name.startswith(own)}


async def _until_up(process: subprocess.Popen[bytes], data_dir: Path, log_path: Path) -> None:
    link = NodeLink(places.control_path(data_dir))
    with anyio.move_on_after(START_S):
        while process.poll() is None:
            try:
                await link.ask("status")
            except NetworkError:
                await anyio.sleep(LOOK_S)
            else:
                return
    log = (await anyio.Path(log_path).read_text(errors="replace"))[-LOG_CHARS:]
    raise NetworkError(f"the node did not come up; what it wrote ends:\n{log}", code="not_running")


async def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    with anyio.move_on_after(STOP_S):
        while process.poll() is None:  # noqa: ASYNC110 a process has no event
            await anyio.sleep(LOOK_S)
    if process.poll() is None:
        process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
