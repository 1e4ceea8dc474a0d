"""Gossip topics over py-libp2p's pubsub: who is heard, and what is passed on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog
import trio
from libp2p.abc import INetStream, ISubscriptionAPI
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub

from kowalski.mesh.transport import Gossip
from kowalski.protocol.errors import LocalProtocolError
from kowalski.protocol.ids import PeerId, Topic
from kowalski.protocol.limits import GOSSIP_BYTES_MAX

log = structlog.get_logger(__name__)

GOSSIP_QUEUE_MAX = 256


@dataclass(frozen=True, slots=True)
class _Listener:
    admits: Callable[[PeerId], bool]
    send: trio.MemorySendChannel[Gossip]
    # The same channel's other end, to make room at.
    oldest: trio.MemoryReceiveChannel[Gossip]

    def hear(self, gossip: Gossip) -> None:
        try:
            self.send.send_nowait(gossip)
        except trio.WouldBlock:
            self.oldest.receive_nowait()
            self.send.send_nowait(gossip)
        except trio.BrokenResourceError:
            log.debug("gossip-without-a-reader")


def leave_out_peer_records(pubsub: Pubsub) -> None:
    """Say in no message of gossip, signed anew, at which addresses we are.

    py-libp2p puts that beside each, and whoever receives it verifies the signature once more: a
    twelfth of what a mesh of eight costs its nodes at rest. Addresses are told by our own messages.
    """
    write = pubsub.write_msg

    async def write_bare(stream: INetStream, rpc_msg: rpc_pb2.RPC) -> bool:
        rpc_msg.ClearField("senderRecord")
        is_written: bool = await write(stream, rpc_msg)
        return is_written

    pubsub.write_msg = write_bare


class GossipTopics:
    """The topics of one host. `nursery` carries a reader for each."""

    def __init__(self, pubsub: Pubsub, me: PeerId, nursery: trio.Nursery) -> None:
        self._pubsub = pubsub
        self._me = me
        self._nursery = nursery
        self._listeners: dict[Topic, list[_Listener]] = {}

    async def subscribe(
        self, topic: Topic, admits: Callable[[PeerId], bool]
    ) -> trio.MemoryReceiveChannel[Gossip]:
        send, receive = trio.open_memory_channel[Gossip](GOSSIP_QUEUE_MAX)
        listener = _Listener(admits, send, receive.clone())
        if (listeners := self._listeners.get(topic)) is not None:
            listeners.append(listener)
            return receive
        self._listeners[topic] = [listener]

        def admit(forwarder: ID, message: rpc_pb2.Message) -> bool:
            return self._admits(topic, PeerId(str(forwarder)), message)

        # Validators come after the signature check and before delivery and forwarding.
        self._pubsub.set_topic_validator(topic, admit, is_async_validator=False)
        self._nursery.start_soon(self._read, topic, await self._pubsub.subscribe(topic))
        return receive

    async def publish(self, topic: Topic, data: bytes) -> None:
        if len(data) > GOSSIP_BYTES_MAX:
            raise LocalProtocolError(f"gossip of {len(data)} bytes")
        await self._pubsub.publish(topic, data)

    def _admits(self, topic: Topic, forwarder: PeerId, message: rpc_pb2.Message) -> bool:
        if list(message.topicIDs) != [topic] or len(message.data) > GOSSIP_BYTES_MAX:
            return False
        origin = _origin(message)
        if origin == self._me:
            return forwarder == self._me
        return any(listener.admits(origin) for listener in self._listeners[topic])

    async def _read(self, topic: Topic, subscription: ISubscriptionAPI) -> None:
        while True:
            message = await subscription.get()
            origin = _origin(message)
            if origin == self._me:
                continue
            gossip = Gossip(origin, bytes(message.data))
            for listener in self._listeners[topic]:
                if listener.admits(origin):
                    listener.hear(gossip)


def _origin(message: rpc_pb2.Message) -> PeerId:
    # The signature check has compared this id with the key that signed.
    return PeerId(str(ID(message.from_id)))
