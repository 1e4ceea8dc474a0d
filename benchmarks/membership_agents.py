"""Two systems that say who is there, run alike for `benchmarks.membership`: our nodes and Serf's.

Each runs one process a machine. What a process comes to think of another is read from what it logs.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

import psutil

from kowalski.node.local_cluster import LocalNode
from tests.integration.cluster import START_S, Cluster, entering, open_cluster
from tests.netns import Machine

Opinion = Literal["unroutable", "routable", "suspect", "failed", "alive"]

OURS = ("--roles", "submit,fold", "--no-http", "--log-format", "json")
"""A node without models and without code to run: what is left is the mesh."""

_OPINIONS: Mapping[str, Opinion] = {
    "unroutable": "unroutable",
    "member-disconnected": "unroutable",
    "routable": "routable",
    "member-connected": "routable",
}
_SERF: Mapping[str, Opinion] = {
    "memberlist: Suspect": "suspect",
    "serf: EventMemberFailed:": "failed",
    "serf: EventMemberJoin:": "alive",
}
_SERF_LINE = re.compile(rf"({'|'.join(map(re.escape, _SERF))}) (\w+) ")


@dataclass(frozen=True, slots=True)
class Seen:
    """`observer` came to think so of `about`, at `at` (Unix time)."""

    at: float
    observer: str
    about: str
    opinion: Opinion


class Agents(Protocol):
    title: str
    back: frozenset[Opinion]
    """What an observer must have thought of one that is entirely back."""

    def start(self, name: str) -> None:
        """Start one, again if it was killed; it need not be up on return."""
        ...

    def process(self, name: str) -> psutil.Process: ...

    def kill(self, name: str) -> None: ...

    def seen(self) -> list[Seen]: ...


def signal_to(agents: Agents, name: str, number: signal.Signals) -> None:
    agents.process(name).send_signal(number)


# --- ours -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Nodes:
    cluster: Cluster
    machines: Mapping[str, Machine]
    title: str = "kowalski-node"
    back: frozenset[Opinion] = frozenset({"routable", "alive"})

    def start(self, name: str, *options: str) -> None:
        prefix = entering(self.machines[name])
        node = self.cluster.start(name, *OURS, *options, prefix=prefix)
        node.peer = self._peers.get(name, "")

    def process(self, name: str) -> psutil.Process:
        return psutil.Process(self.cluster.named(name).process.pid)

    def kill(self, name: str) -> None:
        self._peers = {node.name: node.peer for node in self.cluster.nodes}
        self.cluster.named(name).kill()

    _peers: dict[str, str] = field(default_factory=dict)

    def seen(self) -> list[Seen]:
        names = {node.peer: node.name for node in self.cluster.nodes}
        return [one for node in self.cluster.nodes for one in _of_log(node, names)]


def _of_log(node: LocalNode, names: Mapping[str, str]) -> Iterator[Seen]:
    for line in (node.data_dir / "node.log").read_text(errors="replace").splitlines():
        if not line.startswith("{") or not line.endswith("}"):
            continue
        said = json.loads(line)
        opinion = said["state"] if said["event"] == "member-changed" else None
        opinion = opinion or _OPINIONS.get(said["event"])
        if opinion and said.get("peer") in names:
            at = datetime.fromisoformat(said["timestamp"]).timestamp()
            yield Seen(at, node.name, names[said["peer"]], opinion)


@contextmanager
def open_nodes(folder: Path, machines: Mapping[str, Machine]) -> Iterator[Nodes]:
    """Found a mesh of one node a machine, and wait until all have met."""
    first, *others = machines
    with open_cluster(folder) as cluster:
        nodes = Nodes(cluster, machines)
        nodes.start(first)
        cluster.named(first).wait_until_up(START_S)
        line = cluster.named(first).invite(uses=len(others))
        for name in others:
            nodes.start(name, "--join", line)
        cluster.wait_until_met(2 * START_S)
        yield nodes


# --- Serf -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Serf:
    """Agents with their defaults, of the profile `lan`."""

    machines: Mapping[str, Machine]
    title: str = "Serf"
    back: frozenset[Opinion] = frozenset({"alive"})
    _agents: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    _seen: list[Seen] = field(default_factory=list)

    def start(self, name: str) -> None:
        machine = self.machines[name]
        known = [other.ip for other in self.machines.values() if other is not machine]
        agent = subprocess.Popen(
            [
                *entering(machine),
                *("serf", "agent", "-node", name, "-bind", machine.ip),
                *(word for ip in known[:2] for word in ("-retry-join", ip)),
                *("-retry-interval", "1s"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._agents[name] = agent
        threading.Thread(target=self._listen, args=(name, agent), daemon=True).start()

    def _listen(self, observer: str, agent: subprocess.Popen[str]) -> None:
        assert agent.stdout is not None
        for line in agent.stdout:
            at = time.time()
            if found := _SERF_LINE.search(line):
                self._seen.append(Seen(at, observer, found[2], _SERF[found[1]]))

    def process(self, name: str) -> psutil.Process:
        return psutil.Process(self._agents[name].pid)

    def kill(self, name: str) -> None:
        self._agents[name].kill()
        self._agents[name].wait(10)

    def seen(self) -> list[Seen]:
        return list(self._seen)

    def close(self) -> None:
        for agent in self._agents.values():
            agent.kill()
            agent.wait(10)


@contextmanager
def open_serf(machines: Mapping[str, Machine]) -> Iterator[Serf]:
    """The same with Serf; they may not have met yet."""
    serf = Serf(machines)
    try:
        for name in machines:
            serf.start(name)
        yield serf
    finally:
        serf.close()
