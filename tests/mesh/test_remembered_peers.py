import json
import stat
from pathlib import Path

import pytest

from kowalski.mesh.remembered_peers import PEERS_MAX, RememberedPeers
from kowalski.protocol.ids import Address, PeerId

A, B = PeerId("AAAAAAAA"), PeerId("BBBBBBBB")
HERE, THERE = Address("/ip4/10.0.0.1/tcp/4170"), Address("/ip4/10.0.0.2/tcp/4170")


def test_what_was_remembered_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    peers = RememberedPeers(path)
    assert peers.peers == {}
    peers.remember(A, (HERE,))
    peers.remember(B, (HERE, THERE))
    peers.remember(A, (THERE,))
    assert RememberedPeers(path).peers == {A: (THERE,), B: (HERE, THERE)}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_is_written_where_nothing_is_new(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    peers = RememberedPeers(path)
    peers.remember(A, ())
    assert not path.exists()
    peers.remember(A, (HERE,))
    written = path.stat().st_ino
    peers.remember(A, (HERE,))
    peers.remember(A, ())
    assert path.stat().st_ino == written
    assert peers.peers == {A: (HERE,)}


def test_the_peers_remembered_last_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    many = {f"peer{number:04}": [HERE] for number in range(PEERS_MAX)}
    path.write_text(json.dumps(many))
    peers = RememberedPeers(path)
    peers.remember(A, (HERE,))
    assert len(peers.peers) == PEERS_MAX
    assert A in peers.peers
    assert f"peer{PEERS_MAX - 1:04}" not in peers.peers
    peers.remember(B, (HERE,))
    assert {A, B} <= set(RememberedPeers(path).peers)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b'{"AAAAAAAA": 5}', b'{"AAAAAAAA": "/ip4"}', b"\xff\xfe"]
)
def test_a_damaged_file_costs_only_the_shortcut(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "peers.json"
    path.write_bytes(content)
    peers = RememberedPeers(path)
    assert peers.peers == {}
    peers.remember(A, (HERE,))
    assert RememberedPeers(path).peers == {A: (HERE,)}


def test_a_disk_that_refuses_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    peers = RememberedPeers(tmp_path / "file" / "peers.json")
    peers.remember(A, (HERE,))
    assert peers.peers == {A: (HERE,)}
