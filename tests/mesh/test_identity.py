import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID

from kowalski.mesh.identity import (
    Identity,
    identity_from_seed,
    load_or_create_identity,
    new_identity,
    peer_of,
    public_key_of,
    verify,
)
from kowalski.protocol.errors import ConfigError
from kowalski.protocol.ids import PeerId


def test_an_identity_survives_a_restart(tmp_path: Path) -> None:
    first = load_or_create_identity(tmp_path / "node" / "identity")
    assert load_or_create_identity(tmp_path / "node" / "identity") == first


def test_the_key_file_and_its_folder_are_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "node" / "identity"
    load_or_create_identity(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_a_key_file_that_others_can_read_is_refused_with_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    load_or_create_identity(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
        load_or_create_identity(path)


@pytest.mark.parametrize("size", [0, 1, 24, 25, 60, 88, 89])
def test_a_truncated_key_file_is_refused_and_left_alone(tmp_path: Path, size: int) -> None:
    path = tmp_path / "identity"
    load_or_create_identity(path)
    damaged = path.read_bytes()[:size] if size < 89 else path.read_bytes()[:-2] + b"x\n"
    path.write_bytes(damaged)
    if size == 89 or len(damaged.strip()) < 89:
        with pytest.raises(ConfigError, match="damaged"):
            load_or_create_identity(path)
    assert path.read_bytes() == damaged


def test_a_folder_in_the_place_of_the_key_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=str(tmp_path)):
        load_or_create_identity(tmp_path)


def test_a_folder_that_cannot_be_made_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="identity file"):
        load_or_create_identity(tmp_path / "file" / "identity")


def test_starters_at_the_same_moment_agree_on_one_identity(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(load_or_create_identity, [path] * 8))
    assert len({identity.peer for identity in found}) == 1


def test_the_peer_id_is_the_one_libp2p_computes() -> None:
    for _ in range(20):
        identity = new_identity()
        key_pair = create_new_key_pair(seed=identity.private_key_bytes)
        assert identity.peer == str(ID.from_pubkey(key_pair.public_key))
        assert public_key_of(identity.peer) == key_pair.public_key.to_bytes()


def test_the_module_does_not_import_libp2p() -> None:
    program = "import sys, kowalski.mesh.identity; sys.exit('libp2p' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_signature_verifies_with_the_peer_id_alone() -> None:
    one, other = new_identity(), new_identity()
    signature = one.sign(b"words")
    assert verify(one.peer, b"words", signature)
    assert not verify(one.peer, b"other words", signature)
    assert not verify(other.peer, b"words", signature)
    assert not verify(one.peer, b"words", b"")


def test_the_private_key_is_in_no_repr() -> None:
    identity = identity_from_seed(b"\7" * 32)
    assert repr(identity.private_key_bytes) not in repr(identity)
    assert isinstance(identity, Identity)


@given(st.binary(min_size=32, max_size=32))
def test_peer_ids_and_keys_convert_both_ways(key: bytes) -> None:
    assert public_key_of(peer_of(key)) == key


@given(st.text(max_size=80))
def test_no_text_makes_verification_raise(text: str) -> None:
    assert not verify(PeerId(text), b"", b"")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        "12D3KooW",
        "0" * 20,
        "1" * 64,
        "z" * 10_000,
    ],
)
def test_other_peer_ids_have_no_key_to_give(text: str) -> None:
    with pytest.raises(ValueError, match=r"peer id|base58"):
        public_key_of(PeerId(text))
