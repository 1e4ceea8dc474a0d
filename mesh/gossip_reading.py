"""The one way in for what is heard on a topic, whatever the topic."""

from __future__ import annotations

import structlog

from kowalski.mesh.transport import Gossip
from kowalski.protocol.errors import RemoteProtocolError
from kowalski.protocol.limits import GOSSIP_BYTES_MAX
from kowalski.protocol.messages.base import Message

log = structlog.get_logger(__name__)


def message_of(gossip: Gossip) -> Message | None:
    """What it says; None, and a line in the log, where it is too long or no message of ours."""
    try:
        if len(gossip.data) > GOSSIP_BYTES_MAX:
            raise RemoteProtocolError(f"gossip of {len(gossip.data)} bytes")
        message = gossip.message
    except RemoteProtocolError as broken:
        log.warning("bad-gossip", peer=gossip.origin, error=str(broken))
        return None
    return message
