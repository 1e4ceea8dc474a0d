"""Where members were last reachable, kept across restarts: for networks that filter multicast."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import structlog

from kowalski.mesh.private_files import write_private
from kowalski.protocol.errors import ConfigError
from kowalski.protocol.ids import Address, PeerId

log = structlog.get_logger(__name__)

PEERS_MAX = 256


class RememberedPeers:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._peers = _load(path)

    @property
    def peers(self) -> Mapping[PeerId, tuple[Address, ...]]:
        return self._peers

    def remember(self, peer: PeerId, addresses: tuple[Address, ...]) -> None:
        """Keep the newest addresses of a peer; a disk that refuses is no reason to stop."""
        if not addresses or self._peers.get(peer) == addresses:
            return
        others = {name: known for name, known in self._peers.items() if name != peer}
        self._peers = dict(list({peer: addresses, **others}.items())[:PEERS_MAX])
        try:
            write_private(self._path, _written(self._peers).encode())
        except ConfigError as error:
            log.warning("peers-not-remembered", error=str(error))


def _written(peers: Mapping[PeerId, tuple[Address, ...]]) -> str:
    """An address a line. An indent takes `json` ten times as long; who meets many writes often."""
    return json.dumps(peers, separators=(",\n ", ": "))


def _load(path: Path) -> dict[PeerId, tuple[Address, ...]]:
    """What the file says; a damaged one only costs us the shortcut."""
    try:
        rows = json.loads(path.read_bytes())
        return {
            PeerId(str(peer)): tuple(Address(str(one)) for one in addresses)
            for peer, addresses in rows.items()
            if isinstance(addresses, list)
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        log.warning("remembered-peers-unreadable", path=str(path), error=str(error))
        return {}
