"""The way out of a session whose owner lets it: an HTTP proxy outside, the only thing it can reach.

A session has a network of its own with nothing in it but one listener, made before its first cell
and answered from here. So names are resolved and addresses judged outside, by us: what is this
machine's own, and unless the owner says so what is on its networks, stays out of reach. Programs
find the proxy by the usual variables. CONNECT is RFC 9110, section 9.3.6.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from types import MappingProxyType
from typing import Literal

import structlog
import trio

from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.repl.proxy_requests import HEAD_BYTES_MAX, Asked, HeadError, read_head

log = structlog.get_logger(__name__)

Network = Literal["none", "internet", "lan"]
"""What sessions reach: nothing, public addresses, or those of our networks as well."""

PROXY_PORT = 3128
CONNECTIONS_MAX = 32
"""Of one session at a time; more wait."""
CONNECTIONS_MAX_TOGETHER = 128
"""Answered at a time, of all sessions."""
HEAD_S_MAX = 10.0
CONNECT_S_MAX = 10.0
IDLE_S_MAX = 120.0
ADDRESSES_TRIED = 4
RESOLVERS_MAX = 8
"""Threads for all sessions together: slow name servers are not to keep the node from its disk."""

_STALL_S = 0.5
_READ_BYTES = 64 * 1024
_MAIL_PORT = 25
# Addresses with another inside, behind a gateway of whoever runs one (RFC 6052, 3056, 4380).
_TRANSLATED = tuple(
    map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))
)

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def environment() -> Mapping[str, str]:
    """What tells programs inside of the proxy."""
    url = f"http://127.0.0.1:{PROXY_PORT}"
    names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    here = dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1,::1")
    # Node.js heeds them from version 24 on, if told so.
    return MappingProxyType({**dict.fromkeys(names, url), **here, "NODE_USE_ENV_PROXY": "1"})


def is_allowed(address: IPAddress, network: Network) -> bool:
    """Whether sessions may reach it, as far as its number says."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_allowed(address.ipv4_mapped, network)
        if any(address in each for each in _TRANSLATED):
            return False
    if network == "none" or address.is_multicast or address.is_unspecified:
        return False
    if address.is_loopback or address.is_link_local or address.is_reserved:
        return False
    return address.is_global or (network == "lan" and address.is_private)


def is_ours(address: IPAddress) -> bool:
    """Whether it is this machine's: then it would speak to itself. Nothing is sent."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return ipaddress.ip_address(probe.getsockname()[0].partition("%")[0]) == address
    except OSError:
        return False


class Egress:
    """Answers the proxies of all sessions of one host; made by `open_egress`."""

    def __init__(self, network: Network, nursery: trio.Nursery) -> None:
        self.network: Network = network
        self._nursery = nursery
        self.connections = trio.Semaphore(CONNECTIONS_MAX_TOGETHER)
        self._resolvers = trio.CapacityLimiter(RESOLVERS_MAX)

    def way_out(self) -> WayOut:
        """For one session. Raises OSError."""
        return WayOut(self, self._nursery)

    async def addresses(self, host: str) -> list[IPAddress]:
        """In the order in which they should be tried. Raises OSError."""
        look_up = partial(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
        found = await trio.to_thread.run_sync(
            look_up, limiter=self._resolvers, abandon_on_cancel=True
        )
        return [ipaddress.ip_address(str(place[0]).partition("%")[0]) for *_, place in found]

    def may_reach(self, address: IPAddress) -> bool:
        return is_allowed(address, self.network) and not is_ours(address)


class WayOut:
    """`theirs` goes to the session, which sends its listener back; `close` ends all it has open."""

    def __init__(self, egress: Egress, nursery: trio.Nursery) -> None:
        self._egress = egress
        self._nursery = nursery
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._scope = trio.CancelScope()

    def is_passed(self) -> None:
        self.theirs.close()

    def open(self) -> None:
        """Answer from now on. The session is ready, so that its listener has been sent.

        Raises:
            OSError: it has not.
        """
        self._ours.setblocking(False)
        _, fds, _, _ = socket.recv_fds(self._ours, 1, 1)
        if not fds:
            raise OSError("a session has sent no listener")
        listener = trio.socket.from_stdlib_socket(socket.socket(fileno=fds[0]))
        self._nursery.start_soon(self._serve, listener)

    def close(self) -> None:
        self._scope.cancel()
        self._ours.close()
        self.theirs.close()

    async def _serve(self, listener: trio.socket.SocketType) -> None:
        slots = trio.Semaphore(CONNECTIONS_MAX)
        with listener, self._scope:
            async with open_plain_nursery() as nursery:
                while True:
                    await slots.acquire()
                    inside = trio.SocketStream(await _accepted(listener))
                    nursery.start_soon(self._converse, inside, slots)

    async def _converse(self, inside: trio.SocketStream, slots: trio.Semaphore) -> None:
        try:
            async with inside, self._egress.connections:
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self._answer(inside)
        finally:
            slots.release()

    async def _answer(self, inside: trio.SocketStream) -> None:
        try:
            with trio.fail_after(HEAD_S_MAX):
                asked, rest = await _asked(inside)
        except trio.TooSlowError:
            return
        except HeadError as error:
            await _refuse(inside, "400 Bad Request", str(error))
            return
        try:
            outside = await self._reach(asked.host, asked.port)
        except OSError as error:
            log.debug("egress-refused", host=asked.host, port=asked.port, why=str(error))
            await _refuse(inside, "403 Forbidden", str(error))
            return
        async with outside:
            if asked.head is None:
                await inside.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await outside.send_all((asked.head or b"") + rest)
            await _join(inside, outside)

    async def _reach(self, host: str, port: int) -> trio.SocketStream:
        """Raises OSError: it may not be reached, or cannot, in words for who asked."""
        if port == _MAIL_PORT:
            raise OSError("this device sends no mail for others")
        with trio.move_on_after(CONNECT_S_MAX):
            addresses = await self._egress.addresses(host)
            allowed = [each for each in addresses if self._egress.may_reach(each)]
            if not allowed:
                raise OSError(f"{host}: not reached from here: the owner allows {self._words()}")
            error: OSError = OSError(f"{host} has no address")
            for address in dict.fromkeys(allowed[:ADDRESSES_TRIED]):
                try:
                    return await trio.open_tcp_stream(str(address), port)
                except OSError as failed:
                    error = failed
            raise error
        raise OSError(f"{host} did not answer within {CONNECT_S_MAX:g} s")

    def _words(self) -> str:
        if self._egress.network == "lan":
            return "public addresses and those of its networks, and nothing of its own"
        return "public addresses alone"


async def _accepted(listener: trio.socket.SocketType) -> trio.socket.SocketType:
    while True:
        try:
            peer, _ = await listener.accept()
        except OSError as error:
            # Descriptors are short, for one; whoever asks waits meanwhile.
            log.warning("egress-stalls", why=str(error))
            await trio.sleep(_STALL_S)
        else:
            return peer


async def _asked(inside: trio.SocketStream) -> tuple[Asked, bytes]:
    """The request, and what came behind its head."""
    data = b""
    while b"\r\n\r\n" not in data:
        if len(data) > HEAD_BYTES_MAX:
            raise HeadError("a head without an end")
        piece = await inside.receive_some(_READ_BYTES)
        if not piece:
            raise HeadError("no request")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return read_head(head), rest


async def _refuse(inside: trio.SocketStream, status: str, why: str) -> None:
    body = f"kowalski-node: {why}\n".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    await inside.send_all(head.encode() + b"Connection: close\r\n\r\n" + body)


async def _join(one: trio.SocketStream, other: trio.SocketStream) -> None:
    """Until both have said all, one is gone, or nothing has come from either for long."""
    with trio.CancelScope(deadline=trio.current_time() + IDLE_S_MAX) as idle:

        async def pump(source: trio.SocketStream, target: trio.SocketStream) -> None:
            try:
                while data := await source.receive_some(_READ_BYTES):
                    idle.deadline = trio.current_time() + IDLE_S_MAX
                    await target.send_all(data)
                await target.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                idle.cancel()

        async with open_plain_nursery() as nursery:
            nursery.start_soon(partial(pump, one, other))
            nursery.start_soon(partial(pump, other, one))


@asynccontextmanager
async def open_egress(network: Network) -> AsyncIterator[Egress | None]:
    """None where sessions reach nothing."""
    if network == "none":
        yield None
        return
    async with open_plain_nursery() as nursery:
        yield Egress(network, nursery)
        nursery.cancel_scope.cancel()
