"""The mesh's transport on real networks: TCP, Noise, Yamux and gossipsub of py-libp2p 0.8.1.

This and the other `libp2p_*` modules are the only ones that import libp2p. Its exceptions end
here: what a peer or the network does is a `PeerUnreachableError` or an event.
"""

# py-libp2p annotates interfaces that lack half of what its classes have, and its objects are
# extended here.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportAssignmentType=false
# pyright: reportReturnType=false

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address

import structlog
import trio
from libp2p import new_host
from libp2p.abc import INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.host.basic_host import BasicHost
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from kowalski.mesh.identity import Identity
from kowalski.mesh.interfaces import interface_addresses, reachable_from_outside
from kowalski.mesh.libp2p_connections import Connections
from kowalski.mesh.libp2p_gossip import GossipTopics, leave_out_peer_records
from kowalski.mesh.libp2p_guards import (
    AllowedTopics,
    Guard,
    guard_host,
    guard_pubsub_size,
    guard_service_tasks,
    quieten,
)
from kowalski.mesh.libp2p_strangers import (
    STRANGERS_PER_ADDRESS_MAX,
    AdmittedGossip,
    Gate,
    StrangersPlaces,
    guard_against_strangers,
)
from kowalski.mesh.libp2p_streams import WEATHER, open_negotiated, serve_stream
from kowalski.mesh.libp2p_yamux import Patience, SteadyMuxing
from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.mesh.transport import ConnectionEvent, Gossip, Stream, StreamHandler
from kowalski.protocol.errors import ConfigError, PeerUnreachableError
from kowalski.protocol.ids import Address, PeerId, Topic
from kowalski.protocol.limits import GOSSIP_BYTES_MAX

log = structlog.get_logger(__name__)

ALL_GUARDS = frozenset(Guard)
HANDSHAKE_S = 5
CLOSE_S = 5.0
ADDRESSES_S = 1.0
"""Between two looks at the network interfaces: each costs a millisecond."""

# One gossip RPC may carry several messages, and control messages beside them.
RPC_BYTES_MAX = 8 * GOSSIP_BYTES_MAX
TOPIC_PREFIX = "kowalski/"

_NAME_FAMILIES = {"dns": socket.AF_UNSPEC, "dns4": socket.AF_INET, "dns6": socket.AF_INET6}


@asynccontextmanager
async def open_libp2p_transport(
    identity: Identity,
    *,
    listen: tuple[Address, ...],
    topics_max: int = 16,
    connections_max: int = 250,
    streams_max: int = 1024,
    patience: Patience = Patience(),  # noqa: B008 frozen
    guards: frozenset[Guard] = ALL_GUARDS,
) -> AsyncIterator[Libp2pTransport]:
    """Listen, and be reachable until the block is left.

    `topics_max` bounds what one peer may subscribe to, `streams_max` the streams one connection may
    bring in. `guards` is for tests that show what happens without one.

    Raises:
        ConfigError: an address in `listen` is malformed, taken, or not ours.
    """
    quieten()
    addresses = [_listenable(address) for address in listen]
    host, pubsub = _assemble(identity, addresses, connections_max)
    network: Swarm = host.get_network()
    network.upgrader.muxer_multistream = SteadyMuxing(
        patience=patience, streams_max=streams_max, negotiate_timeout_s=HANDSHAKE_S
    )
    gate = Gate(host.multiselect.handlers)
    places = StrangersPlaces(
        gate.is_admitted, places=connections_max // 2, per_address=STRANGERS_PER_ADDRESS_MAX
    )
    guard_host(host, pubsub, places, guards)
    gossip = AdmittedGossip(pubsub, gate)
    if Guard.STRANGERS in guards:
        guard_against_strangers(host, gate, gossip)
    guard_pubsub_size(pubsub, AllowedTopics(TOPIC_PREFIX), topics_max)
    leave_out_peer_records(pubsub)
    closing = trio.Event()
    async with open_plain_nursery() as nursery:
        try:
            inside = _Inside(host, pubsub, gate, gossip)
            # Not `nursery.start`: cancelled meanwhile, it would wait for a shielded task to end.
            opened, transport = trio.open_memory_channel[Libp2pTransport](1)
            run = partial(_run, inside, addresses=addresses, guards=guards, closing=closing)
            nursery.start_soon(run, opened)
            yield await transport.receive()
        finally:
            closing.set()


@dataclass(frozen=True, slots=True)
class _Inside:
    """What a transport is made of."""

    host: BasicHost
    pubsub: Pubsub
    gate: Gate
    gossip: AdmittedGossip


async def _run(
    inside: _Inside,
    opened: trio.MemorySendChannel[Libp2pTransport],
    *,
    addresses: list[Multiaddr],
    guards: frozenset[Guard],
    closing: trio.Event,
) -> None:
    host, pubsub = inside.host, inside.pubsub
    network: Swarm = host.get_network()
    # In a task of its own and shielded, so that a block that is cancelled can still say goodbye to
    # its peers, and its exceptions do not pass through the nurseries of four services.
    with trio.CancelScope(shield=True):
        async with (
            # A connection before the services run would wait for them uncancellably: listen last.
            host.run([]),
            background_trio_service(pubsub),
            background_trio_service(pubsub.router),
            trio.open_nursery() as nursery,
        ):
            if Guard.SERVICE_TASKS in guards:
                for service in (network, pubsub, pubsub.router):
                    guard_service_tasks(service.get_manager())
            await pubsub.wait_until_ready()
            connections = Connections(
                nursery, on_fewer=inside.gossip.begin, on_none=inside.gate.forget
            )
            network.register_notifee(connections)
            await network.listen(*addresses)
            if len(network.listeners) < len(addresses):
                raise ConfigError(f"cannot listen on all of {', '.join(map(str, addresses))}")
            opened.send_nowait(Libp2pTransport(inside, connections, nursery))
            await closing.wait()
            with trio.move_on_after(CLOSE_S):
                await connections.close_all()
                await host.close()
            nursery.cancel_scope.cancel()


class Libp2pTransport:
    """See `kowalski.mesh.transport.Transport`."""

    def __init__(self, inside: _Inside, connections: Connections, nursery: trio.Nursery) -> None:
        self._peer = PeerId(str(inside.host.get_id()))
        self._host = inside.host
        self._network: Swarm = inside.host.get_network()
        self._gate = inside.gate
        self._gossip = inside.gossip
        self._connections = connections
        self._topics = GossipTopics(inside.pubsub, self._peer, nursery)
        self._nursery = nursery
        self._dials: dict[PeerId, trio.Lock] = {}
        self._addresses: tuple[Address, ...] = ()
        self._looked_at = -ADDRESSES_S

    @property
    def peer(self) -> PeerId:
        return self._peer

    @property
    def addresses(self) -> tuple[Address, ...]:
        now = trio.current_time()
        if now - self._looked_at >= ADDRESSES_S:
            bound = [
                str(address)
                for listener in self._network.listeners.values()
                for address in listener.get_addrs()
            ]
            self._addresses = _concrete(tuple(dict.fromkeys(bound)))
            self._looked_at = now
        return self._addresses

    @property
    def connections(self) -> frozenset[PeerId]:
        return self._connections.peers

    @property
    def connection_events(self) -> trio.MemoryReceiveChannel[ConnectionEvent]:
        return self._connections.events

    async def connect(self, peer: PeerId, address: Address, *, timeout_s: float) -> None:
        await trio.lowlevel.checkpoint()
        if peer == self._peer:
            raise PeerUnreachableError("dialling ourselves")
        lock = self._dials.setdefault(peer, trio.Lock())
        try:
            with trio.fail_after(timeout_s):
                async with lock:
                    if peer not in self._connections.peers:
                        maddr = await _dialable(address)
                        await self._network.dial_addr(maddr, ID.from_base58(peer))
        except (*WEATHER, ValueError, trio.TooSlowError) as error:
            raise PeerUnreachableError(f"no {peer} at {address}: {_root(error)}") from error
        finally:
            if not lock.locked():
                self._dials.pop(peer, None)
        if peer not in self._connections.peers:
            raise PeerUnreachableError(f"{peer} at {address} hung up")

    async def finds(self, peer: PeerId, address: Address, *, timeout_s: float) -> bool:
        await trio.lowlevel.checkpoint()
        wanted = ID.from_base58(peer)
        try:
            with trio.fail_after(timeout_s):
                maddr = Multiaddr(f"{await _dialable(address)}/p2p/{peer}")
                dialler = self._network.transport_manager.transport_for_dialing(maddr)
                if dialler is None or peer == self._peer:
                    return False
                raw = await dialler.dial(maddr)
                try:
                    await self._network.upgrader.upgrade_security(raw, True, wanted)
                finally:
                    with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_S):
                        await raw.close()
        except (*WEATHER, ValueError, trio.TooSlowError):
            return False
        return True

    async def disconnect(self, peer: PeerId) -> None:
        await self._connections.close(peer)

    async def open_stream(self, peer: PeerId, protocol: str, *, timeout_s: float) -> Stream:
        connection = self._connections.to(peer)
        if connection is None:
            await trio.lowlevel.checkpoint()
            raise PeerUnreachableError(f"no connection to {peer}")
        opening = _Opening()
        self._nursery.start_soon(opening.run, connection, protocol, peer, timeout_s)
        return await opening.result()

    def admit(self, peer: PeerId) -> None:
        if not self._gate.is_admitted(peer):
            self._gate.admit(peer)
            self._gossip.begin(ID.from_base58(peer))

    def dismiss(self, peer: PeerId) -> None:
        if self._gate.is_admitted(peer):
            self._gate.dismiss(peer)
            self._gossip.end(ID.from_base58(peer))

    def serve(self, protocol: str, handler: StreamHandler, *, to_strangers: bool = False) -> None:
        async def serve_one(net_stream: INetStream) -> None:
            await serve_stream(handler, net_stream, PeerId(str(net_stream.muxed_conn.peer_id)))

        if to_strangers:
            self._gate.open_to_strangers(protocol)
        self._host.set_stream_handler(protocol, serve_one)

    async def subscribe(
        self, topic: Topic, *, admits: Callable[[PeerId], bool]
    ) -> trio.MemoryReceiveChannel[Gossip]:
        return await self._topics.subscribe(topic, admits)

    async def publish(self, topic: Topic, data: bytes) -> None:
        await self._topics.publish(topic, data)


class _Opening:
    """One stream being opened in the background, so that its asker may lose patience any time."""

    def __init__(self) -> None:
        self._done = trio.Event()
        self._is_wanted = True
        self._outcome: Stream | PeerUnreachableError | None = None

    async def run(
        self, connection: SwarmConn, protocol: str, peer: PeerId, timeout_s: float
    ) -> None:
        try:
            stream = await open_negotiated(connection, protocol, peer, timeout_s=timeout_s)
        except PeerUnreachableError as error:
            self._outcome = error
        else:
            self._outcome = stream
            if not self._is_wanted:
                await stream.reset()
        self._done.set()

    async def result(self) -> Stream:
        try:
            await self._done.wait()
        finally:
            self._is_wanted = False
        assert self._outcome is not None
        if isinstance(self._outcome, PeerUnreachableError):
            raise self._outcome
        return self._outcome


def _assemble(
    identity: Identity, addresses: list[Multiaddr], connections_max: int
) -> tuple[BasicHost, Pubsub]:
    key_pair = create_new_key_pair(seed=identity.private_key_bytes)
    noise_key = create_noise_key_pair().private_key
    host = new_host(
        key_pair=key_pair,
        listen_addrs=addresses,
        # By default plaintext is accepted as well.
        sec_opt={NOISE: NoiseTransport(key_pair, noise_privkey=noise_key)},
        muxer_opt={YAMUX: Yamux},
        connection_config=ConnectionConfig(
            max_connections=connections_max,
            high_watermark=connections_max,
            low_watermark=0,
            min_connections=0,
            # More than one, and a dial waits for a second address for 250 ms.
            max_connections_per_peer=1,
            dial_timeout=HANDSHAKE_S,
            inbound_upgrade_timeout=HANDSHAKE_S,
            outbound_upgrade_timeout=HANDSHAKE_S,
            outbound_stream_protocol_negotiation_timeout=HANDSHAKE_S,
            inbound_stream_protocol_negotiation_timeout=HANDSHAKE_S,
        ),
        disable_identify_address_discovery=True,
    )
    network: Swarm = host.get_network()
    # Its per-address rates would refuse a mesh behind one address; its counts leak when a dial is
    # cancelled. Streams, connections and handshakes are bounded by ours.
    network.set_resource_manager(None)
    network.retry_config = RetryConfig(max_retries=0)
    router = GossipSub(
        protocols=["/meshsub/1.1.0"],
        degree=6,
        degree_low=4,
        degree_high=12,
        heartbeat_interval=1,
        # Sixty seconds, the default, isolate a node that everybody happened to prune.
        prune_back_off=5,
        # Adaptation stretches the heartbeat to a minute; spam protection drops our own messages
        # above 10 a second; diversity by address means nothing on one LAN.
        adaptive_gossip_enabled=False,
        spam_protection_enabled=False,
        eclipse_protection_enabled=False,
    )
    pubsub = Pubsub(host, router, max_inbound_rpc_size=RPC_BYTES_MAX)
    # Its sequence numbers start at the time in seconds and count messages: after a restart they
    # would repeat, and everybody would drop ours as seen.
    pubsub.counter = time.time_ns()
    return host, pubsub


async def _dialable(address: Address) -> Multiaddr:
    """Look a name up as the system does; py-libp2p asks name servers alone, not mDNS or a file."""
    _, family, host, *rest = address.split("/")
    if family in _NAME_FAMILIES:
        found = await trio.socket.getaddrinfo(host, None, _NAME_FAMILIES[family])
        ip = found[0][4][0]
        return Multiaddr(f"/ip{ip_address(ip).version}/{ip}/{'/'.join(rest)}")
    return Multiaddr(address)


def _listenable(address: Address) -> Multiaddr:
    """Parse, and try to bind.

    py-libp2p swallows the error of a listener, and sets SO_REUSEPORT: a second node on the same
    port would get every other connection of the first.
    """
    host, port, maddr = _host_and_port(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(
                    f"port {port} is in use, cannot listen on {address}; "
                    "stop the other program or choose another port"
                ) from error
            raise ConfigError(f"cannot listen on {address}: {error.strerror}") from error
    return maddr


def _host_and_port(address: Address) -> tuple[str, int, Multiaddr]:
    _, family, host, protocol, port, *rest = [*address.split("/"), *[""] * 5]
    try:
        if family not in {"ip4", "ip6"} or protocol != "tcp" or any(rest):
            port = ""
        return str(ip_address(host)), int(port), Multiaddr(address)
    except ValueError as error:
        raise ConfigError(
            f"cannot listen on {address}: expected /ip4/HOST/tcp/PORT or /ip6/HOST/tcp/PORT"
        ) from error


def _concrete(bound: tuple[str, ...]) -> tuple[Address, ...]:
    """Replace `any interface` by the addresses of those that we have now."""
    addresses: list[str] = []
    for address in bound:
        host, port, _ = _host_and_port(Address(address))
        if not ip_address(host).is_unspecified:
            addresses.append(address)
            continue
        version = ip_address(host).version
        ours = [a.ip for a in interface_addresses() if a.ip.version == version]
        outside = [ip for ip in ours if reachable_from_outside(ip)]
        chosen = outside or [ip for ip in ours if ip.is_loopback]
        addresses.extend(f"/ip{version}/{ip}/tcp/{port}" for ip in chosen)
    return tuple(Address(address) for address in dict.fromkeys(addresses))


def _root(error: BaseException) -> str:
    """What it comes down to, in the words of the system where it was the system."""
    while True:
        if error.__cause__ is not None:
            error = error.__cause__
        elif isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        elif isinstance(error, OSError) and error.errno:
            return os.strerror(error.errno).lower()
        else:
            return str(error) or type(error).__name__
