"""How a node comes to be a member: by its file, by a line to join with, or by a mesh of its own."""

from __future__ import annotations

import time

import structlog
import trio

from kowalski.mesh.admission import join
from kowalski.mesh.conversation import open_asker
from kowalski.mesh.identity import Identity, load_or_create_identity
from kowalski.mesh.libp2p_loading import load_transport
from kowalski.mesh.membership_certificates import (
    CertificateError,
    Membership,
    found_mesh,
    load_membership,
    save_membership,
    verify,
)
from kowalski.mesh.plain_nursery import first_error
from kowalski.mesh.transport import Transport
from kowalski.node.config import NodeConfig
from kowalski.node.own_membership import ENDED_IS_FINE, is_revoked
from kowalski.protocol.errors import ConfigError, PeerUnreachableError
from kowalski.protocol.join_line import JoinLine
from kowalski.protocol.join_line import parse as parse_join_line

log = structlog.get_logger(__name__)

JOIN_DIAL_S = 5.0


def known_membership(
    config: NodeConfig, identity: Identity, line: JoinLine | None
) -> Membership | None:
    """What the file says, if it holds; with none, whether `line` can be joined with at all."""
    known = load_membership(config.mesh_path)
    if known is not None and line is not None and known.mesh == line.mesh:
        # What was revoked is void, and the line is for a new beginning.
        is_void = known.root is None and is_revoked(config, identity, known)
        known = None if is_void else known
    if known is None:
        if line is not None and line.not_after_unix_s < time.time():
            raise ConfigError(
                "the join line has expired; make a new one with: kowalski-node invite"
            )
        return None
    if line is not None and line.mesh != known.mesh:
        raise ConfigError(
            f"this node is a member of mesh {known.mesh} already, the join line is of "
            f"{line.mesh}; leave it first (`kowalski-node leave`), or use another --data-dir"
        )
    now_unix_s = time.time()
    try:
        certificate = verify(
            known.certificate,
            mesh=known.mesh,
            peer=identity.peer,
            now_unix_s=now_unix_s,
            rules=ENDED_IS_FINE,
        )
        if certificate.not_after_unix_s < now_unix_s:
            cure = "start the node that founded the mesh, or an admin: they renew it"
            log.warning("certificate-has-ended", cure=cure)
    except CertificateError as no:
        # The file of a founding node holds the root key: nobody shall be told to delete that.
        cure = "make it anew with: kowalski-node identity rotate"
        if known.root is None:
            cure = "leave that mesh (kowalski-node leave) and join again with a new invite"
        raise ConfigError(
            f"the membership in {config.mesh_path} does not hold: {no}; {cure}"
        ) from no
    return known


async def join_mesh(config: NodeConfig, line_text: str) -> Membership:
    """Join without becoming a node, and keep the membership for when one starts.

    Also if we are a member: one that was revoked while it was away does not know that it was.
    Whoever calls has claimed the data directory.

    Raises:
        ConfigError: something that the operator can mend.
    """
    line = parse_join_line(line_text)
    identity = load_or_create_identity(config.identity_path)
    known = known_membership(config, identity, line)
    if known is not None and known.root is not None:
        return known
    await trio.to_thread.run_sync(load_transport)
    from kowalski.mesh.libp2p_transport import open_libp2p_transport  # noqa: PLC0415

    async with open_libp2p_transport(identity, listen=()) as transport:
        return await new_membership(config, identity, line, transport)


async def new_membership(
    config: NodeConfig, identity: Identity, line: JoinLine | None, transport: Transport
) -> Membership:
    """Join with the line given, or found a mesh of one."""
    if line is None:
        membership = found_mesh(identity.peer, now_unix_s=int(time.time()))
    else:
        membership = await _join(config, identity, line, transport)
    save_membership(config.mesh_path, membership)
    return membership


async def _join(
    config: NodeConfig, identity: Identity, line: JoinLine, transport: Transport
) -> Membership:
    complaint = "it names no address"
    for address in line.addresses:
        try:
            await transport.connect(line.inviter, address, timeout_s=JOIN_DIAL_S)
            async with open_asker(transport) as asker:
                return await join(identity.peer, config.name, line, asker, unix_clock=time.time)
        except PeerUnreachableError as error:
            complaint = str(error)
        except BaseExceptionGroup as group:
            raise first_error(group) from group.__cause__
    raise ConfigError(f"the inviting peer cannot be reached ({complaint}); is its node running?")
