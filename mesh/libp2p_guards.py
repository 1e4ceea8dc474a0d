"""Guards around py-libp2p 0.8.1: what a remote may send must not end or mute the host.

Each guard wraps methods of one host, one network or one pubsub object; no class and no module of
py-libp2p is changed, except for where its connections log. `docs/upstream.md` has the defects.
"""

# py-libp2p annotates interfaces that lack half of what its classes have, and its objects are
# extended here.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportPrivateUsage=false
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum, auto
from typing import Any

import structlog
import trio
from libp2p.abc import IMuxedConn, INetStream, IRawConnection
from libp2p.host.basic_host import BasicHost
from libp2p.network.connection import swarm_connection
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service.api import ManagerAPI
from multiaddr import Multiaddr

from kowalski.mesh.libp2p_strangers import StrangersPlaces
from kowalski.mesh.libp2p_streams import WEATHER

log = structlog.get_logger(__name__)

# Handshakes at once from one address: more than a mesh of 25 nodes behind one address starts with,
# far less than the slots that a slow dialler could fill.
HANDSHAKES_PER_ADDRESS_MAX = 32
# Simultaneous dials leave two; a restarted peer can add one before the dead one is noticed.
CONNECTIONS_PER_PEER_MAX = 4
HEARTBEAT_RESTART_S = 1.0


class Guard(Enum):
    """What can be left out, to see that py-libp2p still needs it."""

    STREAM_HANDLERS = auto()
    SERVICE_TASKS = auto()
    INBOUND_SLOTS = auto()
    OWN_DIALS = auto()
    GOSSIP_STREAMS = auto()
    STRANGERS = auto()


def guard_stream_handlers(network: Swarm) -> None:
    """An exception in one stream's handler ends that stream, not the host.

    Bytes that are no UTF-8 in a protocol name, or no protobuf on a gossip stream, raise there.
    """
    handle = network.common_stream_handler

    async def handle_or_reset(stream: INetStream) -> None:
        try:
            await handle(stream)
        except Exception as error:  # noqa: BLE001 whatever a remote can provoke
            log.info("stream-dropped", peer=str(stream.muxed_conn.peer_id), error=repr(error))
            await stream.reset()

    network.set_stream_handler(handle_or_reset)


def guard_service_tasks(manager: ManagerAPI) -> None:
    """An exception in one task of a service ends that task, not the service and the host.

    A gossip message with a garbage key raises there, and so does a validator. Daemons, on which
    the service depends, are left alone.
    """
    run_task = manager.run_task

    def run_guarded(
        async_fn: Callable[..., Awaitable[None]],
        *args: object,
        **options: Any,  # noqa: ANN401 theirs
    ) -> None:
        async def survive(*args: object) -> None:
            try:
                await async_fn(*args)
            except Exception as error:  # noqa: BLE001 whatever a remote can provoke
                log.info("service-task-failed", task=options["name"], error=repr(error))

        options["name"] = options.get("name") or getattr(async_fn, "__qualname__", "task")
        run_task(async_fn if options.get("daemon") else survive, *args, **options)

    manager.run_task = run_guarded


def guard_heartbeat(router: GossipSub) -> None:
    """A heartbeat that trips over what a remote made of the router's tables starts again."""
    heartbeat = router.heartbeat

    async def beat_on() -> None:
        while True:
            try:
                await heartbeat()
            except Exception as error:  # noqa: BLE001 whatever a remote can provoke
                log.warning("heartbeat-restarted", error=repr(error))
            await trio.sleep(HEARTBEAT_RESTART_S)

    router.heartbeat = beat_on


def guard_inbound_slots(network: Swarm, places: StrangersPlaces) -> None:
    """Give the slot of an accepted connection back when it ends, and ration slots.

    Without it every new connection is refused after some hundreds in the life of a process, and
    one address can hold all slots with handshakes that it never finishes, or with connections on
    which it never proves anything. The oldest goes for the newest: to be silent keeps nobody out.
    """
    upgrade = network.upgrade_inbound_raw_conn
    handshakes: dict[str, list[IRawConnection]] = {}

    async def upgrade_until_closed(raw_conn: IRawConnection, maddr: Multiaddr) -> IMuxedConn:
        remote = raw_conn.get_remote_address()
        address = remote[0] if remote else ""
        unfinished = handshakes.setdefault(address, [])
        unfinished.append(raw_conn)
        try:
            if len(unfinished) > HANDSHAKES_PER_ADDRESS_MAX:
                await unfinished.pop(0).close()
            muxed = await upgrade(raw_conn, maddr)
        finally:
            if raw_conn in unfinished:
                unfinished.remove(raw_conn)
            if not unfinished and handshakes.get(address) is unfinished:
                del handshakes[address]
        # Ended ones stay listed for the two tenths of a second that it takes to tidy up.
        live = [
            connection
            for connection in network.get_connections(muxed.peer_id)
            if not connection.muxed_conn.event_shutting_down.is_set()
        ]
        if len(live) > CONNECTIONS_PER_PEER_MAX:
            await muxed.close()
        with places.taken(muxed, address) as leaving:
            for stranger in leaving:
                log.info("stranger-makes-room", peer=str(stranger.peer_id), address=address)
                network.get_manager().run_task(_close_quietly, stranger)
            await muxed.event_closed.wait()
        # The caller would keep slot and task until the network stops; it gives them up on this.
        raise SwarmException("inbound connection ended")

    network.upgrade_inbound_raw_conn = upgrade_until_closed


async def _close_quietly(connection: IMuxedConn) -> None:
    with suppress(*WEATHER):
        await connection.close()


def guard_own_dials(network: Swarm) -> None:
    """Only `Transport.connect` dials.

    py-libp2p would dial addresses that remotes told it, by itself: to fill up to half of
    `high_watermark`, and whenever a stream is wanted to somebody who just left.
    """

    async def refuse(peer_id: ID) -> list[object]:
        await trio.lowlevel.checkpoint()
        raise SwarmException(f"no connection to {peer_id}")

    network.dial_peer = refuse
    network.auto_connector.maybe_connect = trio.lowlevel.checkpoint


def guard_pubsub_size(pubsub: Pubsub, topics: AllowedTopics, topics_max: int) -> None:
    """Bound what remotes can make us remember about their subscriptions."""
    pubsub.allowed_topics = topics
    pubsub.max_subscriptions_per_peer = topics_max
    pubsub.max_subscriptions_per_rpc = topics_max


class AllowedTopics:
    """Topics of our name space, as `Pubsub.allowed_topics`.

    A set of the topics we have subscribed to would not do: a remote says once, when it connects,
    what it listens to, and that may be before we know the topic.
    """

    def __init__(self, prefix: str, chars_max: int = 128) -> None:
        self._prefix = prefix
        self._chars_max = chars_max

    def __contains__(self, topic: str) -> bool:
        return topic.startswith(self._prefix) and len(topic) <= self._chars_max


def guard_gossip_streams(pubsub: Pubsub) -> None:
    """Who comes back gets a new gossip stream, even before the old connection is tidied up.

    The old stream would count as the one it has, and nothing would be written to it until the next
    message finds it broken.
    """
    greet = pubsub._handle_new_peer  # noqa: SLF001 no public way

    async def greet_afresh(peer_id: ID) -> None:
        _forget_dead_stream(pubsub, peer_id)
        await greet(peer_id)

    pubsub._handle_new_peer = greet_afresh  # noqa: SLF001 no public way


def _forget_dead_stream(pubsub: Pubsub, peer_id: ID) -> None:
    stream = pubsub.peers.get(peer_id)
    if stream is not None and stream.muxed_conn.event_shutting_down.is_set():
        del pubsub.peers[peer_id]
        if (queue := pubsub.peer_queues.pop(peer_id, None)) is not None:
            queue.close()
        pubsub._forget_all_subscriptions(peer_id)  # noqa: SLF001 as above
        pubsub.router.remove_peer(peer_id)


def guard_host(
    host: BasicHost, pubsub: Pubsub, places: StrangersPlaces, guards: frozenset[Guard]
) -> None:
    """Put the guards up that need no running service."""
    network = host.get_network()
    if Guard.STREAM_HANDLERS in guards:
        guard_stream_handlers(network)
    if Guard.INBOUND_SLOTS in guards:
        guard_inbound_slots(network, places)
    if Guard.OWN_DIALS in guards:
        guard_own_dials(network)
    if Guard.SERVICE_TASKS in guards:
        guard_heartbeat(pubsub.router)
    if Guard.GOSSIP_STREAMS in guards:
        guard_gossip_streams(pubsub)


def quieten() -> None:
    """Keep py-libp2p off standard error; programs may still attach handlers to `libp2p`.

    Its connections log through `logging.debug` and its kind, which would set up the root logger
    of the program around us.
    """
    logger = logging.getLogger("libp2p")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    swarm_connection.logging = logging.getLogger("libp2p.network.connection")
