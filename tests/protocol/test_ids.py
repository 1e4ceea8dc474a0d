"""Names on the wire: how they are made, and the shapes that messages insist on."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from kowalski.protocol import ids
from tests.protocol.examples import COORDINATOR, HASH, HOME, MESH, TASK

UNIX_MS = st.integers(0, 2**48 - 1)
ENTROPY = st.binary(min_size=10, max_size=16)


def fits(field: object, text: str) -> bool:
    try:
        TypeAdapter(field).validate_python(text, strict=True)
    except ValidationError:
        return False
    return True


def test_content_is_named_by_its_sha_256() -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert ids.content_hash(b"") == empty
    assert fits(ids.ContentHashField, ids.content_hash(b"whale"))


@given(st.binary(min_size=32, max_size=32))
def test_a_mesh_is_named_by_its_root_key(key: bytes) -> None:
    assert fits(ids.MeshIdField, ids.mesh_id(key))
    assert ids.mesh_id(key) == ids.mesh_id(key)
    assert ids.mesh_id(key) != ids.mesh_id(hashlib.sha256(key).digest())


def test_a_task_id_is_a_ulid() -> None:
    # Time and randomness of the ULID specification's own example, 01ARZ3NDEKTSV4RRFFQ69G5FAV.
    entropy = bytes.fromhex("d6764c61efb99302bd5b")
    assert ids.task_id(1_469_922_850_259, entropy) == "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    assert ids.task_id(2**48 - 1, b"\xff" * 10) == "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"


@given(UNIX_MS, ENTROPY, UNIX_MS, ENTROPY)
def test_task_ids_sort_by_their_time(
    early: int, entropy: bytes, late: int, other_entropy: bytes
) -> None:
    early, late = sorted((early, late))
    first, second = ids.task_id(early, entropy), ids.task_id(late, other_entropy)
    assert fits(ids.TaskIdField, first)
    assert early == late or first < second


def test_topics_of_different_meshes_differ() -> None:
    assert ids.topic(MESH, "telemetry") == f"kowalski/{MESH}/telemetry"


@pytest.mark.parametrize(
    ("field", "good"),
    [
        (ids.PeerIdField, COORDINATOR),
        (ids.PeerIdField, "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"),
        (ids.MeshIdField, MESH),
        (ids.TaskIdField, TASK),
        (ids.TaskIdField, "nightly-report_2026.11"),
        (ids.ContentHashField, HASH),
        (ids.AddressField, HOME[0]),
        (ids.AddressField, "/dns4/a.example/tcp/443/wss"),
    ],
)
def test_names_in_use_fit(field: object, good: str) -> None:
    assert fits(field, good)
    assert not fits(field, good + "\n")
    assert not fits(field, " " + good)
    assert not fits(field, good * 50)


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        (ids.PeerIdField, "0OIl0OIl0OIl"),
        (ids.PeerIdField, ""),
        (ids.MeshIdField, MESH.upper()),
        (ids.MeshIdField, MESH[:-1]),
        (ids.TaskIdField, "../../etc/passwd"),
        (ids.TaskIdField, ".hidden"),
        (ids.TaskIdField, ""),
        (ids.ContentHashField, HASH.upper()),
        (ids.AddressField, "192.168.1.7:4170"),
        (ids.AddressField, "/ip4/1.2.3.4/tcp/1 /x"),
    ],
)
def test_names_of_another_shape_do_not_fit(field: object, bad: str) -> None:
    assert not fits(field, bad)
