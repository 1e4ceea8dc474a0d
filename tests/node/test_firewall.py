"""The firewall's verdict, from what a process may read. No firewall is touched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from kowalski.node.core.checks import Check
from kowalski.node.firewall import check_firewall, examine_firewall


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


UFW = {
    "etc/ufw/ufw.conf": "ENABLED=yes\n",
    "etc/default/ufw": 'DEFAULT_INPUT_POLICY="DROP"\n',
}


def test_where_nothing_can_be_read_nothing_is_claimed(tmp_path: Path) -> None:
    for run in (None, lambda _command: None, lambda _command: "nonsense"):
        checks = examine_firewall(4170, tmp_path, run)
        assert [(check.name, check.verdict) for check in checks if "known" in check.found] == [
            ("firewall", "ok")
        ] or run is not None
        assert {check.verdict for check in checks} == {"ok"}


def test_root_reads_the_rules_and_says_what_to_allow(tmp_path: Path) -> None:
    def run(command: Sequence[str]) -> str | None:
        saved = "*filter\n:INPUT DROP [0:0]\n-A INPUT -p udp --dport 5353 -j ACCEPT\n"
        return saved if command[0] == "iptables-save" else None

    p2p, mdns = examine_firewall(4170, tmp_path, run)
    assert p2p == Check(
        "firewall",
        "warn",
        "iptables drops what comes to 4170/tcp",
        "allow 4170/tcp from the local network",
    )
    assert (mdns.verdict, mdns.found) == ("ok", "lets 5353/udp in")


def test_one_firewall_that_drops_is_enough(tmp_path: Path) -> None:
    def run(command: Sequence[str]) -> str | None:
        policy = "DROP" if command[0] == "ip6tables-save" else "ACCEPT"
        return f"*filter\n:INPUT {policy} [0:0]\n" if command[0] != "nft" else None

    (mdns,) = examine_firewall(0, tmp_path, run)
    assert (mdns.verdict, mdns.found) == ("warn", "ip6tables drops what comes to 5353/udp")


def test_ufw_is_told_of_without_root(tmp_path: Path) -> None:
    (check,) = examine_firewall(4170, write(tmp_path, UFW), None)
    assert check.verdict == "warn"
    assert "sudo ufw allow 4170/tcp" in check.cure
    (check,) = examine_firewall(0, tmp_path, None)
    assert check.verdict == "ok"
    write(tmp_path, {"etc/default/ufw": 'DEFAULT_INPUT_POLICY="ACCEPT"\n'})
    assert examine_firewall(4170, tmp_path, None)[0].verdict == "ok"
    write(tmp_path, {"etc/ufw/ufw.conf": "ENABLED=no\n"})
    assert "not known" in examine_firewall(4170, tmp_path, None)[0].found


@pytest.mark.parametrize(
    ("zone", "verdict", "words"),
    [
        ('<zone><service name="mdns"/><port port="4170" protocol="tcp"/></zone>', "ok", "home"),
        ('<zone><service name="mdns"/></zone>', "warn", "4170/tcp"),
        ("", "warn", "cannot be read"),
    ],
)
def test_firewalld_is_told_of_without_root(
    tmp_path: Path, zone: str, verdict: str, words: str
) -> None:
    wanted = tmp_path / "etc/systemd/system/multi-user.target.wants"
    wanted.mkdir(parents=True)
    (wanted / "firewalld.service").symlink_to("/usr/lib/systemd/system/firewalld.service")
    files = {"etc/firewalld/firewalld.conf": "DefaultZone=home\n"}
    write(tmp_path, files | {"usr/lib/firewalld/zones/home.xml": zone})
    (check,) = examine_firewall(4170, tmp_path, None)
    assert check.verdict == verdict
    assert words in check.found
    assert bool(check.cure) == (verdict == "warn")


@pytest.mark.trio
async def test_the_firewall_of_this_machine_is_no_error() -> None:
    checks = await check_firewall(4170)
    assert checks
    assert all(check.name == "firewall" and check.verdict in {"ok", "warn"} for check in checks)
