"""A peer of its own process for tests on a LAN: finds others by mDNS, connects, gossips, tells.

Every line of its standard output is a JSON array, the first element says what happened. It ends
when its standard input does.
"""

import json
import sys

import structlog
import trio

from kowalski.mesh.discovery import open_discovery
from kowalski.mesh.identity import new_identity
from kowalski.mesh.libp2p_transport import Libp2pTransport, open_libp2p_transport
from kowalski.mesh.libp2p_yamux import Patience
from kowalski.mesh.transport import Gossip
from kowalski.protocol.errors import PeerUnreachableError
from kowalski.protocol.ids import Address, MeshId, Topic

TOPIC = Topic("kowalski/lan/hello")


def tell(*what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def find(transport: Libp2pTransport) -> None:
    mesh = MeshId("l" * 32)
    async with open_discovery(transport.peer, lambda: transport.addresses, mesh) as discovery:
        async for sighting in discovery.sightings:
            tell("left" if sighting.left else "sighted", sighting.peer, sighting.addresses)
            if sighting.left or sighting.peer < transport.peer:
                continue
            for address in sighting.addresses:
                try:
                    await transport.connect(sighting.peer, address, timeout_s=5)
                    break
                except PeerUnreachableError as error:
                    tell("unreachable", str(error))


async def tell_connections(transport: Libp2pTransport) -> None:
    async for event in transport.connection_events:
        transport.admit(event.peer)
        tell(type(event).__name__.lower(), event.peer)


async def tell_gossip(heard: trio.MemoryReceiveChannel[Gossip]) -> None:
    async for gossip in heard:
        tell("heard", gossip.origin)


async def greet(transport: Libp2pTransport) -> None:
    while True:
        await transport.publish(TOPIC, b"hello")
        await trio.sleep(0.2)


async def main() -> None:
    patience = Patience(silence_s=1, ping_s=1)
    listen = (Address("/ip4/0.0.0.0/tcp/0"),)
    async with (
        open_libp2p_transport(new_identity(), listen=listen, patience=patience) as transport,
        trio.open_nursery() as nursery,
    ):
        tell("up", transport.peer, transport.addresses)
        nursery.start_soon(tell_connections, transport)
        nursery.start_soon(tell_gossip, await transport.subscribe(TOPIC, admits=lambda _: True))
        nursery.start_soon(greet, transport)
        nursery.start_soon(find, transport)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
trio.run(main)
