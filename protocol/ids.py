"""Names of things on the wire: peers, meshes, tasks, content.

All are plain strings at run time, told apart by the type checkers. The `...Field` aliases carry the
shape that a message insists on.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Annotated, Final, NewType

from pydantic import StringConstraints

PeerId = NewType("PeerId", str)
"""A libp2p peer id in base58: the hash of an Ed25519 public key, or the key itself."""

MeshId = NewType("MeshId", str)
"""Base32 of the first 20 bytes of SHA-256 over the mesh root public key: 32 lower-case letters."""

TaskId = NewType("TaskId", str)
"""A ULID or a key of the submitter's own choice; the submitter makes it, and it never changes."""

ContentHash = NewType("ContentHash", str)
"""SHA-256 of some bytes, 64 hexadecimal digits."""

Address = NewType("Address", str)
"""A multiaddr without the peer part, such as `/ip4/192.168.1.7/tcp/4170`."""

Topic = NewType("Topic", str)
"""A gossip topic, `kowalski/<mesh id>/<what>`."""

TASK_ID_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
CONTENT_HASH_PATTERN: Final = r"^[0-9a-f]{64}$"

PeerIdField = Annotated[PeerId, StringConstraints(pattern=r"^[1-9A-HJ-NP-Za-km-z]{8,64}$")]
MeshIdField = Annotated[MeshId, StringConstraints(pattern=r"^[a-z2-7]{32}$")]
TaskIdField = Annotated[TaskId, StringConstraints(pattern=TASK_ID_PATTERN)]
ContentHashField = Annotated[ContentHash, StringConstraints(pattern=CONTENT_HASH_PATTERN)]
AddressField = Annotated[Address, StringConstraints(pattern=r"^/[\x21-\x7e]{1,255}$")]

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def content_hash(data: bytes) -> ContentHash:
    return ContentHash(hashlib.sha256(data).hexdigest())


def mesh_id(root_public_key: bytes) -> MeshId:
    digest = hashlib.sha256(root_public_key).digest()[:20]
    return MeshId(base64.b32encode(digest).decode().lower())


def task_id(unix_ms: int, entropy: bytes) -> TaskId:
    """A ULID (github.com/ulid/spec): 48 bits of time, 80 bits of the caller's `entropy`."""
    value = (unix_ms & (2**48 - 1)) << 80 | int.from_bytes(entropy[:10], "big")
    return TaskId("".join(_CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5)))


def topic(mesh: MeshId, what: str) -> Topic:
    return Topic(f"kowalski/{mesh}/{what}")
