"""Nodes as processes, for tests: on loopback, or each in a network namespace of its own.

Every node, and every run of the command line, gets a data directory, a home and an environment of
its own, so that nothing of the developer's machine leaks in. Only processes started here are ended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kowalski.node.local_cluster import LocalCluster, LocalNode
from tests.netns import Machine

ROOT = Path(__file__).resolve().parents[2]
CLI_S = 60.0
LOOK_S = 0.05
HOLD_S = 30.0
START_S = 60.0

FOREIGN = ("KOWALSKI_", "OLLAMA_HOST", "OPENAI_", "XDG_", "PYTEST_")


def clean_environment(home: Path) -> dict[str, str]:
    home.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return kept | {"HOME": str(home)}


def wait_until(holds: Callable[[], bool], what: str, timeout_s: float = HOLD_S) -> None:
    """Look until `holds`; where nothing tells when a fact about another process changes."""
    give_up_at = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < give_up_at, f"not within {timeout_s:g} s: {what}"
        time.sleep(LOOK_S)


# --- the command line ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Ended:
    """One run of the command line."""

    exit_code: int
    stdout: str
    stderr: str
    duration_s: float

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What `--json` printed."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def result(self) -> dict[str, Any]:
        return self.lines[-1]

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("kind") == kind]

    @property
    def error(self) -> dict[str, Any]:
        """What `--json` says of a failure."""
        error: dict[str, Any] = self.result["error"]
        return error


# --- nodes --------------------------------------------------------------------------------------


@dataclasses.dataclass(slots=True)
class Cluster(LocalCluster):
    """`prefix` of `start` is a command that becomes the node, such as one that enters a network."""

    program: tuple[str, ...] = (sys.executable, "-m", "kowalski.node")
    spoken: list[subprocess.Popen[bytes]] = dataclasses.field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return clean_environment(self.folder / "home")

    def start(self, name: str, *options: str, prefix: Sequence[str] = ()) -> LocalNode:
        data_dir = self.folder / name
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        where = [] if prefix else ["--p2p-port", "0", "--listen-host", "127.0.0.1"]
        command = [*prefix, *self.program, "start", "--data-dir", str(data_dir)]
        command += ["--name", name, "--http-port", "0"]
        with (data_dir / "node.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, *where, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=self.folder,
            )
        node = LocalNode(name, data_dir, process)
        self.nodes = [other for other in self.nodes if other.name != name] + [node]
        return node

    def form(self, options: Mapping[str, Sequence[str]]) -> list[LocalNode]:
        """Start a mesh: the first founds it, the others join with a line; wait until all met."""
        (first, *others) = options
        founder = self.start(first, *options[first])
        founder.wait_until_up(START_S)
        if others:
            line = founder.invite(uses=len(others))
            for name in others:
                self.start(name, "--join", line, *options[name])
        self.wait_until_met(START_S)
        return [self.named(name) for name in options]

    def cli(
        self,
        node: LocalNode | None,
        *arguments: str,
        stdin: bytes = b"",
        timeout_s: float = CLI_S,
    ) -> Ended:
        """Run `kowalski-node` as the owner of `node` would."""
        began = time.monotonic()
        done = subprocess.run(
            self._command(node, arguments),
            input=stdin,
            capture_output=True,
            env=self.environment,
            cwd=self.folder,
            timeout=timeout_s,
            check=False,
        )
        stdout, stderr = done.stdout.decode(), done.stderr.decode()
        return Ended(done.returncode, stdout, stderr, time.monotonic() - began)

    def begin_cli(self, node: LocalNode, *arguments: str) -> subprocess.Popen[bytes]:
        """The same, to be spoken with while it runs."""
        process = subprocess.Popen(
            self._command(node, arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            cwd=self.folder,
        )
        self.spoken.append(process)
        return process

    def _command(self, node: LocalNode | None, arguments: Sequence[str]) -> list[str]:
        which = ["--data-dir", str(node.data_dir)] if node is not None else []
        # Before the rest: `run FILE ARGS` takes everything behind it for the program's.
        return [*self.program, arguments[0], *which, *arguments[1:]]

    def logs(self) -> str:
        return "\n".join(f"----- {node.name}\n{whole_log(node)}" for node in self.nodes)

    def close(self) -> None:
        for process in self.spoken:
            process.kill()
            process.communicate()
        self.stop()


def whole_log(node: LocalNode) -> str:
    return (node.data_dir / "node.log").read_text(errors="replace")[-20_000:]


@contextlib.contextmanager
def open_cluster(folder: Path, *program: str) -> Iterator[Cluster]:
    """A cluster without nodes yet; their logs are told when the block fails.

    `program` is the command to run; this interpreter's by default.
    """
    cluster = Cluster(folder, program=program) if program else Cluster(folder)
    try:
        yield cluster
    except BaseException:
        sys.stdout.write(cluster.logs())
        raise
    finally:
        cluster.close()


def child_processes(pid: int) -> set[int]:
    """The process ids of all descendants, from /proc."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                children = (task / "children").read_text().split()
                waiting += [int(child) for child in children]
                found.update(int(child) for child in children)
    return found


def is_running(pid: int) -> bool:
    """Whether there is such a process that is more than a zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


# --- a stand-in for models ----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ModelServer:
    url: str
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def open_model_server(
    folder: Path, *options: str, root: Sequence[str] = (), prefix: Sequence[str] = ()
) -> Iterator[ModelServer]:
    """The scripted model server as a process; `root` are its replies, turn by turn."""
    script = folder / "script.json"
    script.write_text(json.dumps({"root": list(root), "counts_turns": True}))
    command = [*prefix, sys.executable, "-m", "tests.scripted_model_server"]
    process = subprocess.Popen(
        [*command, "--script", str(script), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=clean_environment(folder / "home"),
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the model server did not come up"
        yield ModelServer(json.loads(line)["url"], process)
    finally:
        process.kill()
        process.communicate()


# --- namespaces ---------------------------------------------------------------------------------


def entering(machine: Machine | None) -> list[str]:
    """A command prefix; none for None. It leaves mounts alone, where `ip netns exec` hides /sys."""
    if machine is None:
        return []
    return ["nsenter", f"--net=/run/netns/{machine.name}", "--"]
