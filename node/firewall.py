"""Whether the firewall of this machine may keep peers out, from what this process may read of it.

Root can ask nftables or iptables. For others there are the files of the usual services, ufw and
firewalld. Where nothing can be read nothing is claimed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
import trio

from kowalski.node.core.checks import Check
from kowalski.node.core.firewall_rules import (
    Fate,
    Packet,
    Rules,
    fate,
    read_iptables,
    read_nft,
    setting,
    zone_lets_in,
)

log = structlog.get_logger(__name__)

MDNS = Packet("udp", 5353)
COMMAND_S = 3.0
FILE_BYTES_MAX = 1 << 20
ROOT = Path("/")

Run = Callable[[Sequence[str]], str | None]
"""What a command printed; None if it is not there, may not, or takes too long."""


async def check_firewall(p2p_port: int) -> list[Check]:
    """Of this machine. Never raises for what it cannot read."""
    run = _run if os.geteuid() == 0 else None
    return await trio.to_thread.run_sync(examine_firewall, p2p_port, ROOT, run)


def examine_firewall(p2p_port: int, root: Path, run: Run | None) -> list[Check]:
    """`p2p_port` 0: not known. `run` None: may not ask the kernel, so that files have to do."""
    packets = [*([Packet("tcp", p2p_port)] if p2p_port else []), MDNS]
    if run is not None and (checks := _by_rules(packets, run)):
        return checks
    if checks := _by_files(packets, root):
        return checks
    return [Check("firewall", "ok", "not known: its rules can be read by root alone, if at all")]


def _run(command: Sequence[str]) -> str | None:
    # Only root asks: the usual folders, whatever PATH says.
    program = shutil.which(command[0], path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *command[1:]],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.debug("firewall-not-read", command=command[0], why=str(error))
        return None
    return done.stdout if done.returncode == 0 else None


# --- the rules themselves -----------------------------------------------------------------------


def _by_rules(packets: Sequence[Packet], run: Run) -> list[Check]:
    readers: tuple[tuple[tuple[str, ...], Callable[[str, Packet], Rules]], ...] = (
        (("nft", "-j", "list", "ruleset"), read_nft),
        (("iptables-save",), read_iptables),
        (("ip6tables-save",), read_iptables),
    )
    found: dict[Packet, list[tuple[str, Fate]]] = {}
    for command, read in readers:
        if not (said := run(command)):
            continue
        for packet in packets:
            try:
                rules = read(said, packet)
            except ValueError as error:
                log.debug("firewall-not-read", command=command[0], why=str(error))
                continue
            found.setdefault(packet, []).append((command[0].removesuffix("-save"), fate(rules)))
    return [_judged(packet, fates) for packet, fates in found.items()]


def _judged(packet: Packet, fates: Sequence[tuple[str, Fate]]) -> Check:
    place = f"{packet.port}/{packet.protocol}"
    for wanted, words in (
        ("dropped", f"drops what comes to {place}"),
        ("sometimes", f"lets in only some of what comes to {place}"),
    ):
        if names := [name for name, one in fates if one == wanted]:
            found = f"{' and '.join(names)} {words}"
            return Check("firewall", "warn", found, f"allow {place} from the local network")
    return Check("firewall", "ok", f"lets {place} in")


# --- the files of its services ------------------------------------------------------------------


def _by_files(packets: Sequence[Packet], root: Path) -> list[Check]:
    if setting(_read(root / "etc/ufw/ufw.conf"), "ENABLED").lower() == "yes":
        return [_ufw(packets, root)]
    if (root / "etc/systemd/system/multi-user.target.wants/firewalld.service").is_symlink():
        return [_firewalld(packets, root)]
    return []


def _ufw(packets: Sequence[Packet], root: Path) -> Check:
    policy = setting(_read(root / "etc/default/ufw"), "DEFAULT_INPUT_POLICY") or "DROP"
    if policy == "ACCEPT":
        return Check("firewall", "ok", "ufw is on, and lets in what it has no rule for")
    # ufw lets mDNS in by itself.
    closed = [packet for packet in packets if packet != MDNS]
    if not closed:
        return Check("firewall", "ok", "ufw is on, and lets mDNS in unless it was told otherwise")
    places = " ".join(f"{packet.port}/{packet.protocol}" for packet in closed)
    found = f"ufw is on and may drop {places}; its rules can be read by root alone"
    return Check(
        "firewall", "warn", found, f"unless it is allowed already: sudo ufw allow {places}"
    )


def _firewalld(packets: Sequence[Packet], root: Path) -> Check:
    name = setting(_read(root / "etc/firewalld/firewalld.conf"), "DefaultZone")
    zone = ""
    if name.replace("-", "").replace("_", "").isalnum():
        places = ("etc/firewalld/zones", "usr/lib/firewalld/zones")
        zone = next(filter(None, (_read(root / at / f"{name}.xml") for at in places)), "")
    if not zone:
        return _closed_by_firewalld("is on, and its zones cannot be read; it may drop", packets)
    closed = [packet for packet in packets if not zone_lets_in(zone, packet)]
    if not closed:
        return Check("firewall", "ok", f"firewalld lets this node be reached (zone {name})")
    return _closed_by_firewalld(f"is on, and zone {name} has no rule for", closed)


def _closed_by_firewalld(found: str, packets: Sequence[Packet]) -> Check:
    places = [f"{packet.port}/{packet.protocol}" for packet in packets]
    options = " ".join(f"--add-port={place}" for place in places)
    cure = f"unless it is allowed already: sudo firewall-cmd {options}, and again with --permanent"
    return Check("firewall", "warn", f"firewalld {found} {' and '.join(places)}", cure)


def _read(path: Path) -> str:
    """Empty where it is not there, or may not be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(FILE_BYTES_MAX)
    except OSError:
        return ""
