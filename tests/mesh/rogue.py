"""A peer that speaks libp2p without guards and without manners, and hosts as upstream has them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p import new_host
from libp2p.abc import INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.host.basic_host import BasicHost
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import PUBSUB_SIGNING_PREFIX
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.utils.varint import encode_uvarint
from multiaddr import Multiaddr

from kowalski.mesh.libp2p_transport import Libp2pTransport
from kowalski.protocol.ids import Address, PeerId

GOSSIP_PROTOCOL = "/meshsub/1.1.0"


class Rogue:
    def __init__(self, host: BasicHost) -> None:
        self.host = host
        self.network = host.get_network()
        self.key = host.get_private_key()

    @property
    def peer(self) -> PeerId:
        return PeerId(str(self.host.get_id()))

    async def dial(self, victim: Libp2pTransport, address: Address | None = None) -> None:
        """Connect, and be taken for a member: those can do most harm."""
        await self.dial_as_stranger(victim, address)
        victim.admit(self.peer)

    async def dial_as_stranger(
        self, victim: Libp2pTransport, address: Address | None = None
    ) -> None:
        maddr = Multiaddr(address or victim.addresses[0])
        await self.host.connect(PeerInfo(ID.from_base58(victim.peer), [maddr]))

    async def raw_stream(self, victim: Libp2pTransport) -> INetStream:
        """A stream on which no protocol is agreed yet."""
        return await self.network.new_stream(ID.from_base58(victim.peer))

    async def stream(self, victim: Libp2pTransport, protocol: str) -> INetStream:
        return await self.host.new_stream(ID.from_base58(victim.peer), [protocol])

    async def say(self, victim: Libp2pTransport, *packets: bytes) -> INetStream:
        """Write length-prefixed packets on a gossip stream."""
        stream = await self.stream(victim, GOSSIP_PROTOCOL)
        for packet in packets:
            await stream.write(encode_uvarint(len(packet)) + packet)
        return stream

    def message(
        self,
        *topics: str,
        data: bytes = b"from a rogue",
        origin: bytes | None = None,
        number: int = 1,
    ) -> rpc_pb2.Message:
        """A gossip message signed with our key, whoever it says it is from."""
        message = rpc_pb2.Message(
            data=data,
            topicIDs=list(topics),
            from_id=origin or self.host.get_id().to_bytes(),
            seqno=number.to_bytes(8, "big"),
        )
        signed = PUBSUB_SIGNING_PREFIX.encode() + message.SerializeToString()
        message.signature = self.key.sign(signed)
        message.key = self.host.get_public_key().serialize()
        return message


def publishing(*messages: rpc_pb2.Message) -> bytes:
    packet: bytes = rpc_pb2.RPC(publish=list(messages)).SerializeToString()
    return packet


@asynccontextmanager
async def upstream_host(
    *,
    noise_only: bool = True,
    **options: Any,  # noqa: ANN401 of new_host
) -> AsyncIterator[BasicHost]:
    """A running host with py-libp2p's defaults."""
    key_pair = options.setdefault("key_pair", create_new_key_pair())
    listen = [Multiaddr("/ip4/127.0.0.1/tcp/0")]
    if noise_only and "sec_opt" not in options:
        noise_key = create_noise_key_pair().private_key
        options["sec_opt"] = {NOISE: NoiseTransport(key_pair, noise_privkey=noise_key)}
    host = new_host(listen_addrs=listen, **options)
    async with host.run(listen):
        try:
            yield host
        finally:
            with trio.move_on_after(5) as scope:
                scope.shield = True
                await host.close()


@asynccontextmanager
async def rogue() -> AsyncIterator[Rogue]:
    async with upstream_host() as host:
        yield Rogue(host)


@asynccontextmanager
async def plaintext_host() -> AsyncIterator[BasicHost]:
    """Speaks the unencrypted protocol alone."""
    key_pair = create_new_key_pair()
    plaintext = {PLAINTEXT_PROTOCOL_ID: InsecureTransport(key_pair)}
    async with upstream_host(key_pair=key_pair, sec_opt=plaintext) as host:
        yield host
