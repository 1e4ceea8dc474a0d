"""Network namespaces on a bridge: some machines on one LAN, inside this one. Needs root and `ip`.

The bridge has a namespace of its own, so that nothing of the machine's own network is touched.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KILL_S = 5.0
NOBODY = "02:00:00:00:00:fe"


def missing() -> str | None:
    """Why namespaces cannot be made here, or None."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "needs root"
    if shutil.which("ip") is None:
        return "needs ip (iproute2)"
    name = f"kw{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        return f"cannot make network namespaces: {made.stderr.strip()}"
    _ip("netns", "del", name)
    return None


@dataclass
class Machine:
    """One namespace with one interface on the LAN."""

    name: str
    ip: str
    _bridge: str
    _port: str
    _processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def command(self, *argv: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *argv]

    def start(self, *argv: str, **options: object) -> subprocess.Popen[str]:
        """Start a program here; it is killed with its process group at the end, at the latest."""
        process = subprocess.Popen(
            self.command(*argv),
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            **options,  # type: ignore[call-overload]
        )
        self._processes.append(process)
        return process

    def start_python(self, *arguments: str) -> subprocess.Popen[str]:
        return self.start(sys.executable, "-u", *arguments)

    def run(self, *argv: str, timeout_s: float = 30) -> str:
        """Run a program here to its end; its standard output."""
        done = subprocess.run(
            self.command(*argv),
            cwd=ROOT,
            text=True,
            timeout=timeout_s,
            check=True,
            capture_output=True,
        )
        return done.stdout

    def cut(self) -> None:
        """Pull the cable: packets vanish, and nobody is told."""
        _ip("-n", self._bridge, "link", "set", self._port, "down")

    def mend(self) -> None:
        _ip("-n", self._bridge, "link", "set", self._port, "up")

    def lose_what_is_sent_to(self, other: Machine) -> None:
        """One direction of the link dies: frames go to an address that nobody on the LAN has."""
        _ip(
            *("-n", self.name, "neigh", "replace", other.ip, "lladdr", NOBODY),
            *("dev", "eth0", "nud", "permanent"),
        )

    def find_again(self, other: Machine) -> None:
        _ip("-n", self.name, "neigh", "del", other.ip, "dev", "eth0")

    def move(self, ip: str) -> None:
        """Have another address from now on, and only that, as by a new lease of DHCP."""
        _ip("-n", self.name, "addr", "del", f"{self.ip}/24", "dev", "eth0")
        _ip("-n", self.name, "addr", "add", f"{ip}/24", "dev", "eth0")
        _ip("-n", self.name, "route", "replace", "default", "dev", "eth0")
        self.ip = ip

    def kill_all(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, 9)
            process.wait(KILL_S)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


@contextmanager
def lan(count: int) -> Iterator[list[Machine]]:
    """`count` machines on one LAN, 10.77.0.1 and up."""
    tag = secrets.token_hex(3)
    with ExitStack() as stack:
        bridge = _namespace(f"kw{tag}-lan", stack)
        _ip("-n", bridge, "link", "add", "lan", "type", "bridge")
        _ip("-n", bridge, "link", "set", "lan", "up")
        machines = []
        for number in range(1, count + 1):
            name = _namespace(f"kw{tag}-{number}", stack)
            machine = Machine(name, f"10.77.0.{number}", bridge, f"port{number}")
            _plug_in(machine)
            stack.callback(machine.kill_all)
            machines.append(machine)
        yield machines


def _namespace(name: str, stack: ExitStack) -> str:
    _ip("netns", "add", name)
    stack.callback(_ip, "netns", "del", name)
    _ip("-n", name, "link", "set", "lo", "up")
    return name


def _plug_in(machine: Machine) -> None:
    bridge, port = machine._bridge, machine._port
    _ip(
        *("-n", bridge, "link", "add", port, "type", "veth"),
        *("peer", "name", "eth0", "netns", machine.name),
    )
    _ip("-n", bridge, "link", "set", port, "master", "lan", "up")
    _ip("-n", machine.name, "addr", "add", f"{machine.ip}/24", "dev", "eth0")
    _ip("-n", machine.name, "link", "set", "eth0", "up")
    # As on any LAN. Programs that do not name an interface find multicast by it.
    _ip("-n", machine.name, "route", "add", "default", "dev", "eth0")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=10)
