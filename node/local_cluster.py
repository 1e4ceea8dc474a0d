"""Several nodes as processes on this machine: for the demonstration, benchmarks and tests.

Each has a data directory of its own, listens on loopback at any free port, and is spoken to over
its control socket. Whoever starts them stops them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kowalski.node import places
from kowalski.node.control_client import NodeGoneError, NodeNotRunningError, converse
from kowalski.protocol.errors import KowalskiError

Event = dict[str, object]

START_S = 30.0
MEET_S = 30.0
STOP_S = 10.0
LOOK_S = 0.05
LOG_CHARS = 3000

FOREIGN = ("KOWALSKI_", "OLLAMA_HOST", "OPENAI_")
"""Settings of the owner's own node are none of these nodes' business."""


class NodeTroubleError(KowalskiError):
    """A node did not do what it was started for."""


def _unheard(_event: Event) -> None:
    pass


@dataclass(slots=True)
class LocalNode:
    name: str
    data_dir: Path
    process: subprocess.Popen[bytes]
    peer: str = ""

    @property
    def log(self) -> str:
        """The end of what it wrote to stderr."""
        return (self.data_dir / "node.log").read_text(errors="replace")[-LOG_CHARS:]

    def ask(
        self,
        verb: str,
        request: Mapping[str, object] | None = None,
        *,
        on_event: Callable[[Event], None] = _unheard,
        silence_s: float = 30.0,
    ) -> Event:
        """One request over the control socket; raises what `control_client.converse` raises."""
        path = places.control_path(self.data_dir)
        return converse(path, verb, request or {}, on_event=on_event, silence_s=silence_s)

    def invite(self, *, uses: int) -> str:
        return str(self.ask("invite", {"ttl_s": 3600.0, "uses": uses})["line"])

    def wait_until_up(self, timeout_s: float = START_S) -> None:
        """Raises NodeTroubleError, with the end of its log."""
        give_up_at = time.monotonic() + timeout_s
        while time.monotonic() < give_up_at and self.process.poll() is None:
            try:
                self.peer = str(self.ask("status")["peer"])
            except (NodeNotRunningError, NodeGoneError):
                time.sleep(LOOK_S)
            else:
                return
        raise NodeTroubleError(f"{self.name} did not come up; its log ends:\n{self.log}")

    def members(self) -> set[str]:
        """Peer ids of those it would route to, itself included."""
        rows = self.ask("peers")["peers"]
        assert isinstance(rows, list)
        return {str(row["peer"]) for row in rows if row["routable"]}

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait(timeout=STOP_S)

    def stop(self) -> int:
        """SIGTERM, SIGKILL if that does not help; its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.returncode


@dataclass(slots=True)
class LocalCluster:
    folder: Path
    nodes: list[LocalNode] = field(default_factory=list)

    def start(self, name: str, *options: str) -> LocalNode:
        """Start `kowalski-node start` with these options; it is not up yet when this returns."""
        data_dir = self.folder / name
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = [sys.executable, "-m", "kowalski.node", "start", "--data-dir", str(data_dir)]
        command += ["--name", name, "--p2p-port", "0", "--http-port", "0"]
        command += ["--listen-host", "127.0.0.1", *options]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
        with (data_dir / "node.log").open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        node = LocalNode(name, data_dir, process)
        self.nodes = [other for other in self.nodes if other.name != name] + [node]
        return node

    def named(self, name: str) -> LocalNode:
        return next(node for node in self.nodes if node.name == name)

    def wait_until_met(self, timeout_s: float = MEET_S) -> None:
        """Wait until every node is up and would route to every other.

        Raises:
            NodeTroubleError: that took longer than `timeout_s`.
        """
        give_up_at = time.monotonic() + timeout_s
        for node in self.nodes:
            node.wait_until_up(give_up_at - time.monotonic())
        wanted = {node.peer for node in self.nodes}
        while time.monotonic() < give_up_at:
            if all(node.members() >= wanted for node in self.nodes):
                return
            time.sleep(LOOK_S)
        raise NodeTroubleError(f"the nodes did not find each other within {timeout_s:g} s")

    def stop(self) -> None:
        """Ask all of them first, then wait for each."""
        for node in self.nodes:
            if node.process.poll() is None:
                node.process.terminate()
        for node in self.nodes:
            node.stop()
