"""Peers in processes and network namespaces of their own, that have only the LAN between them."""

import json
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.netns import ROOT, Machine, lan, missing

WHY_NOT = missing()
pytestmark = [
    pytest.mark.real,
    pytest.mark.netns,
    pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or ""),
]
LAN_PEER = str(ROOT / "tests/integration/lan_peer.py")

AVAHI = """
mount -t tmpfs none /run
mkdir -p /run/dbus /run/avahi-daemon
dbus-daemon --config-file="$1/dbus.conf" --nofork --nopidfile &
bus=$!
trap 'kill $daemon $bus' EXIT
until [ -S "$1/bus" ]; do sleep .1; done
export DBUS_SYSTEM_BUS_ADDRESS="unix:path=$1/bus"
avahi-daemon --no-drop-root --no-rlimits --no-chroot --file "$1/avahi.conf" >"$1/log" 2>&1 &
daemon=$!
for _ in 1 2 3 4 5 6 7 8 9 10; do
    avahi-browse --all --terminate >/dev/null 2>&1 && break
    sleep .3
done
avahi-browse --resolve --parsable --terminate _p2p._udp
"""


class Peer:
    def __init__(self, machine: Machine) -> None:
        self.process = machine.start_python(LAN_PEER)
        self.history: list[list[Any]] = []
        self.told: queue.Queue[list[Any]] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self.id = "?"
        _, self.id, self.addresses = self.wait_for("up")

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.told.put(json.loads(line))

    def wait_for(self, what: str, peer: str | None = None, *, within_s: float = 20) -> list[Any]:
        deadline = time.monotonic() + within_s
        while True:
            try:
                event = self.told.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                pytest.fail(f"{self.id} never told {what} {peer}, but {self.history}")
            self.history.append(event)
            if event[0] == what and peer in {None, event[1]}:
                return event

    def wait_for_each(self, what: str, peers: set[str]) -> None:
        missed = set(peers)
        while missed:
            missed.discard(self.wait_for(what)[1])

    def leave(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)


@pytest.fixture
def machines() -> Iterator[list[Machine]]:
    with lan(3) as made:
        yield made


def test_peers_on_a_lan_find_connect_and_hear_each_other(machines: list[Machine]) -> None:
    peers = [Peer(machine) for machine in machines]
    for machine, peer in zip(machines, peers, strict=True):
        assert [address.split("/")[2] for address in peer.addresses] == [machine.ip]
        peer.wait_for_each("connected", {other.id for other in peers if other is not peer})
        peer.wait_for_each("heard", {other.id for other in peers if other is not peer})
    peers[0].leave()
    for peer in peers[1:]:
        peer.wait_for("disconnected", peers[0].id, within_s=3)
    for peer in peers[1:]:
        peer.leave()


def test_a_cut_cable_is_noticed_and_a_mended_one_heals(machines: list[Machine]) -> None:
    one, other = (Peer(machine) for machine in machines[:2])
    one.wait_for("heard", other.id)
    other.wait_for("heard", one.id)
    machines[0].cut()
    one.wait_for("disconnected", other.id, within_s=5)
    other.wait_for("disconnected", one.id, within_s=5)
    machines[0].mend()
    # Sightings repeat; whoever dials does so at the next.
    one.wait_for("heard", other.id, within_s=40)
    one.leave()
    other.leave()


@pytest.mark.skipif(
    any(shutil.which(name) is None for name in ("avahi-daemon", "avahi-browse", "dbus-daemon")),
    reason="needs avahi-daemon, avahi-utils and dbus",
)
def test_avahi_sees_a_peer_and_its_addresses(machines: list[Machine], tmp_path: Path) -> None:
    peer = Peer(machines[0])
    (tmp_path / "dbus.conf").write_text(
        f"<busconfig><type>system</type><listen>unix:path={tmp_path}/bus</listen>"
        "<policy context='default'><allow user='*'/><allow own='*'/>"
        "<allow send_destination='*'/><allow receive_sender='*'/></policy></busconfig>"
    )
    (tmp_path / "avahi.conf").write_text(
        "[server]\nuse-ipv4=yes\nuse-ipv6=no\nallow-interfaces=eth0\n[publish]\ndisable-publishing=yes\n"
    )
    argv = ("unshare", "--mount", "sh", "-c", AVAHI, "sh", str(tmp_path))
    try:
        seen = machines[1].run(*argv, timeout_s=40)
    except subprocess.CalledProcessError as error:
        pytest.fail(f"{error.stderr}\n{(tmp_path / 'log').read_text()}")
    resolved = [line for line in seen.splitlines() if line.startswith("=")]
    assert any(f"dnsaddr={peer.addresses[0]}/p2p/{peer.id}" in line for line in resolved)
    assert any(f";{machines[0].ip};" in line for line in resolved)
    peer.leave()
