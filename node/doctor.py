"""Looks at this machine as a place for a node, and says what to do about what it finds.

Only local means: sockets of this machine, its clock, its disk. What the rooms of a running node
know already (sandbox, backends, ports) is passed in.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import platform
import shutil
import socket
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import trio

from kowalski.node.backends.gguf_metadata import read_metadata
from kowalski.node.core.checks import Check, Verdict
from kowalski.node.firewall import check_firewall
from kowalski.protocol.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kowalski.node.backends.probing import Finding
    from kowalski.node.repl.sandbox import SandboxVerdict

# Administratively scoped (RFC 2365), so that it leaves no site and disturbs no mDNS.
MULTICAST_GROUP = "239.255.41.70"

# First release; a clock before it was never set. Certificates allow 5 minutes between two clocks.
EARLIEST_UNIX_S = 1_764_000_000
CLOCK_GRACE_S = 300.0

DISK_BYTES_LOW = 1 << 30
DISK_BYTES_MIN = 100 << 20
DAY_S = 24 * 3600.0
CERTIFICATE_S_LOW = 14 * DAY_S
"""Renewal begins two months before: something has kept it from happening."""
LLAMA = "xllamacpp"
"""What serves model files."""
LAG_S_HIGH = 0.05
LAG_S_MAX = 0.5
ADDRESSES_MAX = 16

_VPN = ("tun", "tap", "utun", "wg", "ppp", "ipsec", "tailscale", "zt", "nordlynx", "proton")
_CONTAINERS = ("docker", "br-", "veth", "virbr", "vmnet", "bridge", "podman", "cni", "lxc")


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface that is up, with its IPv4 addresses, and those of IPv6 beside them."""

    name: str
    addresses: tuple[str, ...] = ()
    addresses_v6: tuple[str, ...] = ()

    @property
    def is_vpn(self) -> bool:
        return self.name.lower().startswith(_VPN)

    @property
    def is_for_containers(self) -> bool:
        return self.name.lower().startswith(_CONTAINERS)


@dataclass(frozen=True, slots=True)
class SandboxFound:
    """What the room of the hands found; `tier` None: nothing here contains code, so none runs."""

    tier: str | None
    reason: str
    is_offered: bool = True


@dataclass(frozen=True, slots=True)
class BackendFound:
    """One place where a model server was looked for, or a file; `problem` empty: it answers."""

    url: str
    kind: str
    models: int | None = None
    problem: str = ""
    is_fatal: bool = False
    """Whether no node starts because of it."""


async def examine(
    *,
    data_dir: Path,
    p2p_host: str = "127.0.0.1",
    p2p_port: int,
    is_node_running: bool,
    sandbox: SandboxFound | None = None,
    backends: Sequence[BackendFound] | None = None,
    interfaces: Sequence[Interface] | None = None,
    timeout_s: float = 2.0,
) -> tuple[Check, ...]:
    """All checks, in the order in which a person should read them; 1 to 4 seconds.

    `interfaces` None: those of this machine. `sandbox` and `backends` None: not known, no check.
    """
    found = tuple(interfaces if interfaces is not None else local_interfaces())
    checks = [check_platform(), check_data_dir(data_dir), check_clock(data_dir, time.time())]
    checks += check_interfaces(found)
    checks += await check_multicast(found, timeout_s=timeout_s)
    checks.append(
        await check_port(p2p_host, p2p_port, is_node_running=is_node_running, timeout_s=timeout_s)
    )
    checks += await check_firewall(p2p_port)
    if sandbox is not None:
        checks.append(check_sandbox(sandbox))
    if backends is not None:
        checks += check_backends(backends)
    checks.append(await check_event_loop())
    return tuple(checks)


def sandbox_found(verdict: SandboxVerdict, *, is_offered: bool) -> SandboxFound:
    tier = None if verdict.sandbox is None else verdict.tier
    reason = verdict.reason
    if tier is not None and tier != "none" and verdict.passed_over:
        reason += f"; better ones are not to be had: {'; '.join(verdict.passed_over)}"
    return SandboxFound(tier, reason, is_offered)


def backends_found(findings: Sequence[Finding]) -> tuple[BackendFound, ...]:
    """Of the places looked at: those with a server, and those that the owner named."""
    return tuple(
        BackendFound(each.url, each.kind or "", problem=each.why_not)
        for each in findings
        if each.backend is not None or each.is_explicit
    )


def file_found(path: Path, *, served_by: str = LLAMA) -> BackendFound:
    """A model file that the owner named: whether a node could serve it. Only its head is read."""
    try:
        head = read_metadata(path)
    except ConfigError as error:
        problem = str(error).removeprefix(f"model file {path}").lstrip(": ")
        return BackendFound(str(path), "", problem=problem, is_fatal=True)
    if find_spec(served_by) is None:
        missing = "llama.cpp is not installed: pip install 'kowalski-node[llama]'"
        return BackendFound(str(path), "", problem=missing)
    size = f"{head.size_bytes / 2**30:.1f} GiB"
    return BackendFound(str(path), f"llama.cpp, {head.architecture or 'a model'} of {size},")


def local_interfaces() -> tuple[Interface, ...]:
    """Interfaces of this machine that are up, loopback included."""
    stats = psutil.net_if_stats()
    return tuple(
        Interface(
            name,
            tuple(a.address for a in addresses if a.family == socket.AF_INET),
            tuple(a.address.partition("%")[0] for a in addresses if a.family == socket.AF_INET6),
        )
        for name, addresses in sorted(psutil.net_if_addrs().items())
        if name in stats and stats[name].isup
    )


def check_platform() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    found = f"Python {version} on {platform.system()} {platform.machine()}"
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        return Check("platform", "warn", found, "tested with Python 3.11 to 3.13")
    if sys.platform not in {"linux", "darwin"}:
        return Check("platform", "warn", found, "tested on Linux and macOS")
    return Check("platform", "ok", found)


def check_data_dir(data_dir: Path) -> Check:
    """Room to write, and nobody else's eyes on the identity."""
    place = data_dir
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Check("data directory", "fail", f"{data_dir}: {error.strerror}", "choose another")
    found = f"{data_dir}, {free / 2**30:.1f} GiB free"
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return Check("data directory", "fail", f"{place} is not writable", "choose another place")
    if free < DISK_BYTES_MIN:
        return Check("data directory", "fail", found, "free some space, or move it: --data-dir")
    if free < DISK_BYTES_LOW:
        return Check("data directory", "warn", found, "free some space, or move it: --data-dir")
    if place == data_dir and data_dir.stat().st_mode & 0o022:
        return Check("data directory", "warn", f"{found}, others may write", "chmod go-w it")
    return Check("data directory", "ok", found)


def check_clock(data_dir: Path, now_unix_s: float) -> Check:
    """Certificates and invites end by the clock; nothing here asks another machine for the time."""
    found = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_unix_s))
    cure = "set it, and keep it set (systemd-timesyncd, chrony)"
    if now_unix_s < EARLIEST_UNIX_S:
        return Check("clock", "fail", f"{found}, before this program was written", cure)
    newest = max((path.stat().st_mtime for path in _files(data_dir)), default=0.0)
    if newest > now_unix_s + CLOCK_GRACE_S:
        ahead_s = newest - now_unix_s
        return Check("clock", "warn", f"{found}, {ahead_s:.0f} s behind our own files", cure)
    return Check("clock", "ok", found)


def _files(directory: Path) -> list[Path]:
    try:
        return [path for path in directory.iterdir() if path.is_file()]
    except OSError:
        return []


def check_interfaces(interfaces: Sequence[Interface]) -> list[Check]:
    usable = [each for each in interfaces if _is_lan(each)]
    words = ", ".join(f"{each.name} {' '.join(_shown(each))}" for each in usable)
    if not usable:
        none = Check(
            "interfaces", "warn", "none but loopback", "connect to a network to find other devices"
        )
        checks = [none]
    else:
        checks = [Check("interfaces", "ok", words)]
    vpns = [each.name for each in interfaces if each.is_vpn]
    if vpns:
        cure = "if peers on the LAN stay unseen, let the VPN pass local traffic, or use --peer"
        checks.append(Check("vpn", "warn", f"up: {', '.join(vpns)}", cure))
    return checks


def _shown(interface: Interface) -> tuple[str, ...]:
    """Of IPv6 those by which others find it; the link-local ones only where there are no others."""
    own = interface.addresses_v6
    wider = tuple(a for a in own if not ipaddress.ip_address(a).is_link_local)
    return (*interface.addresses, *(wider or (own if not interface.addresses else ())))


def _is_lan(interface: Interface) -> bool:
    addresses = (*interface.addresses, *interface.addresses_v6)
    return (
        not interface.is_vpn
        and not interface.is_for_containers
        and any(not ipaddress.ip_address(a).is_loopback for a in addresses)
    )


async def check_multicast(interfaces: Sequence[Interface], *, timeout_s: float) -> list[Check]:
    """Whether a multicast message of ours comes back, by each interface that mDNS would use.

    That it does shows that this machine lets it out and in. The network beyond may still drop it.
    """
    chosen = [each for each in interfaces if _is_lan(each)]
    addresses = [address for each in chosen for address in each.addresses]
    if not addresses:
        addresses = [address for each in interfaces for address in each.addresses]
    checks: list[Check] = []
    for address in addresses[:ADDRESSES_MAX]:
        problem = await _multicast_problem(address, timeout_s)
        if problem is None:
            checks.append(Check("multicast", "ok", f"sent and received by {address}"))
        else:
            cure = "allow UDP 5353 in the firewall, or name peers with --peer"
            checks.append(Check("multicast", "warn", f"{address}: {problem}", cure))
    return checks


async def _multicast_problem(address: str, timeout_s: float) -> str | None:
    sender = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    receiver = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    with sender, receiver:
        try:
            await receiver.bind((MULTICAST_GROUP if sys.platform == "linux" else "", 0))
            member = socket.inet_aton(MULTICAST_GROUP) + socket.inet_aton(address)
            receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
            token = os.urandom(16)
            await sender.sendto(token, (MULTICAST_GROUP, receiver.getsockname()[1]))
            with trio.fail_after(timeout_s):
                while (await receiver.recvfrom(64))[0] != token:
                    pass
        except trio.TooSlowError:
            return f"sent, and not received within {timeout_s:g} s"
        except OSError as error:
            return (error.strerror or str(error)).lower()
    return None


async def check_port(host: str, port: int, *, is_node_running: bool, timeout_s: float) -> Check:
    """With a node: that its port answers. Without: that nobody else sits on it."""
    place = f"{host} port {port}"
    if is_node_running:
        try:
            with trio.fail_after(timeout_s):
                await (await trio.open_tcp_stream(host, port)).aclose()
        except (OSError, trio.TooSlowError):
            return Check("p2p port", "fail", f"{place} does not answer", "restart the node")
        return Check("p2p port", "ok", f"{place} answers")
    if port == 0:
        return Check("p2p port", "ok", "any free one")
    family = trio.socket.AF_INET6 if ":" in host else trio.socket.AF_INET
    with trio.socket.socket(family, trio.socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            await probe.bind((host, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            found = f"{place} is taken" if taken else f"{place}: {error.strerror}"
            return Check("p2p port", "fail", found, "choose another: --p2p-port")
    return Check("p2p port", "ok", f"{place} is free")


def check_sandbox(sandbox: SandboxFound) -> Check:
    if not sandbox.is_offered:
        return Check("sandbox", "ok", "this node runs no code (--no-repl)")
    if sandbox.tier is None:
        cure = "install bubblewrap, or start with --no-repl"
        return Check("sandbox", "warn", f"none: {sandbox.reason}", cure)
    if sandbox.tier == "none":
        return Check("sandbox", "warn", sandbox.reason, "start without --unsafe-repl")
    return Check("sandbox", "ok", sandbox.reason)


def check_backends(backends: Sequence[BackendFound]) -> list[Check]:
    """No model here is fine: others in the mesh may have one."""
    return [_check_backend(each) for each in backends] or [
        Check(
            "model server", "ok", "none on this device; models of peers are used if there are any"
        )
    ]


def _check_backend(found: BackendFound) -> Check:
    if not found.problem:
        return Check("model server", "ok", _server(found))
    cure = "start it, or unname it" if "://" in found.url else "mend it, or unname it"
    verdict: Verdict = "fail" if found.is_fatal else "warn"
    return Check("model server", verdict, f"{found.url}: {found.problem}", cure)


def check_membership(
    ends_in_s: float | None, *, is_revoked: bool, warnings: Sequence[str]
) -> tuple[Check, ...]:
    """Our certificate, and what else the mesh would have a person look at."""
    checks = [_check_certificate(ends_in_s, is_revoked=is_revoked)]
    checks += [Check("identity", "warn", warning) for warning in warnings]
    return tuple(checks)


def _check_certificate(ends_in_s: float | None, *, is_revoked: bool) -> Check:
    if is_revoked:
        cure = "ask for a new invite, and: kowalski-node join LINE"
        return Check("membership", "fail", "this node was revoked", cure)
    if ends_in_s is None:
        return Check("membership", "ok", "not known")
    days = ends_in_s / DAY_S
    cure = "start the node that founded the mesh, or an admin, for a while: they renew it"
    if ends_in_s <= 0:
        return Check("membership", "warn", f"the certificate ended {-days:.0f} days ago", cure)
    found = f"the certificate ends in {days:.0f} days"
    if ends_in_s < CERTIFICATE_S_LOW:
        return Check("membership", "warn", found, cure)
    return Check("membership", "ok", found)


def _server(backend: BackendFound) -> str:
    models = "" if backend.models is None else f", {backend.models} models"
    return f"{backend.kind} at {backend.url}{models}"


async def check_event_loop(*, naps: int = 25, nap_s: float = 0.01) -> Check:
    """How late the loop wakes us; a late node takes its peers for dead."""
    late_s = 0.0
    for _ in range(naps):
        due = trio.current_time() + nap_s
        await trio.sleep_until(due)
        late_s = max(late_s, trio.current_time() - due)
    found = f"{late_s * 1000:.1f} ms late at worst"
    if late_s > LAG_S_HIGH:
        verdict: Verdict = "fail" if late_s > LAG_S_MAX else "warn"
        return Check("event loop", verdict, found, "this machine is too busy for a node")
    return Check("event loop", "ok", found)
