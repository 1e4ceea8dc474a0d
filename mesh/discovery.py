"""Who else is on this network: libp2p's mDNS discovery, spoken by zeroconf in its own thread.

Follows https://github.com/libp2p/specs/blob/master/discovery/mdns.md: one random service name under
`_p2p._udp.local`, its addresses as repeated `dnsaddr=` strings of a TXT record. One more string,
`mesh=`, names our mesh. Nothing heard here is proven: a dial shows whose key is at an address.
"""

# zeroconf does not mark the record classes as exported.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import re
import secrets
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import TypeVar

import structlog
import trio
from zeroconf import (  # type: ignore[attr-defined]  # the records are public, but unmarked
    DNSOutgoing,
    DNSPointer,
    DNSQuestion,
    DNSText,
    IPVersion,
    RecordUpdate,
    RecordUpdateListener,
    ServiceBrowser,
    ServiceInfo,
    ServiceStateChange,
    Zeroconf,
)

from kowalski.mesh.identity import public_key_of
from kowalski.mesh.interfaces import InterfaceAddress, interface_addresses
from kowalski.protocol.ids import Address, MeshId, PeerId

log = structlog.get_logger(__name__)

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

SERVICE = "_p2p._udp.local."

SIGHTINGS_MAX = 64
ADDRESSES_MAX = 8
"""In one sighting; what else a record names is not looked at."""
NAMES_MAX = 256
"""Service names whose peer is remembered, for a goodbye that does not repeat it."""
TXT_STRING_BYTES_MAX = 255
REPEAT_S_MAX = 600.0
ASK_TIMES_MAX = 3
RETRY_S = 15.0
CLOSE_S = 3.0

# RFC 1035: flags of a query, two types, a class.
_QUERY, _PTR, _TXT, _INTERNET = 0, 12, 16, 1

_DIALABLE = re.compile(r"/(ip4|ip6|dns|dns4|dns6)/[\x21-\x2e\x30-\x7e]{1,200}/tcp/[0-9]{1,5}")
_MESH = re.compile(r"[a-z2-7]{32}")


@dataclass(frozen=True, slots=True)
class Sighting:
    """One announcement, as it was heard. It repeats until ten minutes after it was last heard."""

    peer: PeerId
    addresses: tuple[Address, ...]
    mesh: MeshId | None
    """None from peers of other kinds."""
    left: bool = False
    """It said goodbye."""


class Discovery:
    """Made by `open_discovery`."""

    def __init__(self, sightings: trio.MemoryReceiveChannel[Sighting]) -> None:
        self.sightings = sightings
        self.problem: str | None = None
        """Why nobody can be heard now, in words for a person; None when all is well."""


@asynccontextmanager
async def open_discovery(
    peer: PeerId,
    addresses: Callable[[], tuple[Address, ...]],
    mesh: MeshId | None,
    *,
    interfaces: tuple[str, ...] | None = None,
    look_s: float = 3.0,
    check_s: float = 15.0,
) -> AsyncIterator[Discovery]:
    """Announce `peer`, where `addresses` says that it is, and hear others until the block is left.

    What others announce under our own id is told as well: our data directory may have been copied.

    `interfaces` are local IP addresses to speak from; by default those of every interface that
    leads somewhere, or loopback where there is none. Without a network the block runs all the same:
    `problem` says so. Every `look_s` seconds the interfaces and our addresses are looked at, and it
    starts again when they have changed; every `check_s` seconds sightings are repeated. The oldest
    sightings are dropped when nobody reads them.
    """
    name = secrets.token_hex(20)
    token = trio.lowlevel.current_trio_token()
    ears = Ears(name, partial(token.run_sync_soon, idempotent=True))
    discovery = Discovery(ears.sightings)

    def surroundings() -> _Surroundings:
        return _Surroundings(_present(interfaces), addresses())

    def announcement(found: _Surroundings) -> ServiceInfo | None:
        return _announcement(name, peer, found.addresses, mesh)

    keep_up = partial(_keep_up, look_s=look_s, check_s=check_s)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_up, discovery, surroundings, announcement, ears)
        try:
            yield discovery
        finally:
            nursery.cancel_scope.cancel()


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What zeroconf speaks from, and what it announces. Either may change: another Wi-Fi, a VPN."""

    interfaces: tuple[str | int, ...]
    addresses: tuple[Address, ...]


async def _keep_up(
    discovery: Discovery,
    surroundings: Callable[[], _Surroundings],
    announcement: Callable[[_Surroundings], ServiceInfo | None],
    ears: Ears,
    *,
    look_s: float,
    check_s: float,
) -> None:
    while True:
        found = surroundings()
        zeroconf = None
        try:
            # The thread may take seconds where the network is odd, so it is left behind when we
            # are cancelled; what it then still makes, it closes.
            start = _Start(found.interfaces, announcement(found), ears)
            zeroconf = await start.run()
            discovery.problem = (
                None if found.interfaces else "no network interface to discover peers on"
            )
            check_at = trio.current_time() + check_s
            while surroundings() == found:
                await trio.sleep(min(look_s, check_s))
                if trio.current_time() >= check_at:
                    check_at += check_s
                    ears.ask_again(zeroconf)
                    ears.repeat()
        except OSError as error:
            discovery.problem = f"no discovery on this network: {error.strerror or error}"
            log.info("discovery-failed", error=str(error))
            await trio.sleep(RETRY_S)
        finally:
            if zeroconf is not None:
                with trio.move_on_after(CLOSE_S) as scope:
                    scope.shield = True
                    await trio.to_thread.run_sync(zeroconf.close, abandon_on_cancel=True)


def _present(chosen: tuple[str, ...] | None) -> tuple[str | int, ...]:
    """What zeroconf shall speak from: IPv4 addresses, or IPv6 interface numbers without any."""
    if chosen is not None:
        return chosen
    ours = interface_addresses()
    outside = [address for address in ours if not address.ip.is_loopback]
    return _of_one_family(outside) or _of_one_family(ours)


def _of_one_family(addresses: Iterable[InterfaceAddress]) -> tuple[str | int, ...]:
    found = tuple(addresses)
    ipv4 = tuple(dict.fromkeys(str(a.ip) for a in found if a.ip.version == 4))
    return ipv4 or tuple(dict.fromkeys(a.index for a in found if a.index))


class _Start:
    """Starts zeroconf in a worker thread."""

    def __init__(
        self, interfaces: tuple[str | int, ...], announcement: ServiceInfo | None, ears: Ears
    ) -> None:
        self._interfaces = interfaces
        self._announcement = announcement
        self._ears = ears
        self._is_wanted = True

    async def run(self) -> Zeroconf:
        try:
            return await trio.to_thread.run_sync(self._start, abandon_on_cancel=True)
        except BaseException:
            self._is_wanted = False
            raise

    def _start(self) -> Zeroconf:
        has_ipv4 = any(isinstance(interface, str) for interface in self._interfaces)
        for interface in self._interfaces:
            if isinstance(interface, str):
                # zeroconf would leave a socket behind when an address is not ours (any more).
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                    probe.bind((interface, 0))
        zeroconf = Zeroconf(
            interfaces=list(self._interfaces),
            ip_version=IPVersion.V4Only if has_ipv4 else IPVersion.V6Only,
        )
        try:
            # With a question, so that what was answered in the meantime is told as well.
            zeroconf.add_listener(self._ears, DNSQuestion(SERVICE, _PTR, _INTERNET))
            # Sends the queries, ever more rarely; what comes back is heard by `Ears`.
            ServiceBrowser(zeroconf, SERVICE, handlers=[_pass])
            if self._announcement is not None:
                # The name is random: nobody has to be asked whether it is taken.
                zeroconf.register_service(self._announcement, cooperating_responders=True)
        except BaseException:
            zeroconf.close()
            raise
        if not self._is_wanted:
            zeroconf.close()
        return zeroconf


def _pass(
    zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
) -> None: ...


class Ears(RecordUpdateListener):
    """Hears records in zeroconf's thread, and hands sightings over to trio's.

    `name` is the one under which we announce ourselves. `soon` has a function called in the thread
    in which `sightings` are read.
    """

    def __init__(self, name: str, soon: Callable[[Callable[[], object]], None]) -> None:
        self._send, self.sightings = trio.open_memory_channel[Sighting](SIGHTINGS_MAX)
        self._oldest = self.sightings.clone()
        self._own_name = f"{name}.{SERVICE}".lower()
        self._soon = soon
        # Used by zeroconf's thread: who is behind a service name, and names of which only the
        # name is known, with how often we asked.
        self._peers: dict[str, Sighting] = {}
        self._unknown: dict[str, int] = {}
        # Between the threads.
        self._heard: deque[Sighting] = deque(maxlen=SIGHTINGS_MAX)
        # Used by trio's thread.
        self._latest: dict[PeerId, tuple[float, Sighting]] = {}

    def async_update_records(
        self,
        zc: Zeroconf,
        now: float,  # noqa: ARG002 zeroconf's
        records: list[RecordUpdate],
    ) -> None:
        for record in records:
            if isinstance(record.new, DNSText) and record.new.name.lower().endswith(SERVICE):
                self.hear(record.new.name, record.new.text, ttl_s=record.new.ttl)
        for record in records:
            if isinstance(record.new, DNSPointer) and record.new.name.lower() == SERVICE:
                self._follow(zc, record.new)

    def hear(self, name: str, text: bytes, *, ttl_s: float) -> None:
        """Take a TXT record, from whomever it is: of what service, what it says, how long it holds.

        0 s says that it is over.
        """
        name = name.lower()
        self._unknown.pop(name, None)
        sighting = parse_txt(text)
        if sighting is None or name == self._own_name:
            return
        if ttl_s == 0:
            self._say_left(name)
        else:
            _remember(self._peers, name, sighting)
            self._say(sighting)

    def _follow(self, zc: Zeroconf, pointer: DNSPointer) -> None:
        name = pointer.alias.lower()
        if pointer.ttl == 0:
            self._say_left(name)
        elif name not in self._peers and name != self._own_name and name.endswith(SERVICE):
            # What was answered before we listened is in the cache, and nobody says it again.
            texts = [t for t in zc.cache.async_entries_with_name(name) if isinstance(t, DNSText)]
            for text in texts:
                self.hear(text.name, text.text, ttl_s=text.ttl)
            if not texts and name not in self._unknown:
                _remember(self._unknown, name, 0)
                zc.async_send(_question(name))

    def ask_again(self, zc: Zeroconf) -> None:
        """Ask for records that did not come with their name: packets get lost. From any thread."""
        for name, times in tuple(self._unknown.items()):
            self._unknown.pop(name, None)
            if times < ASK_TIMES_MAX:
                self._unknown[name] = times + 1
                zc.send(_question(name))

    def _say_left(self, name: str) -> None:
        known = self._peers.pop(name, None)
        if known is not None:
            self._say(Sighting(known.peer, known.addresses, known.mesh, left=True))

    def _say(self, sighting: Sighting) -> None:
        self._heard.append(sighting)
        with suppress(trio.RunFinishedError):
            self._soon(self._hand_over)

    def _hand_over(self) -> None:
        while self._heard:
            sighting = self._heard.popleft()
            if sighting.left:
                self._latest.pop(sighting.peer, None)
            else:
                _remember(self._latest, sighting.peer, (trio.current_time(), sighting))
            self._put(sighting)

    def repeat(self) -> None:
        """Say again who was heard not long ago: on the wire, who is known is not told again."""
        for heard_at, sighting in tuple(self._latest.values()):
            if trio.current_time() - heard_at < REPEAT_S_MAX:
                self._put(sighting)
            else:
                del self._latest[sighting.peer]

    def _put(self, sighting: Sighting) -> None:
        try:
            self._send.send_nowait(sighting)
        except trio.WouldBlock:
            self._oldest.receive_nowait()
            self._send.send_nowait(sighting)


def _remember(bounded: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    bounded.pop(key, None)
    bounded[key] = value
    if len(bounded) > NAMES_MAX:
        del bounded[next(iter(bounded))]


def _question(name: str) -> DNSOutgoing:
    question = DNSOutgoing(_QUERY)
    question.add_question(DNSQuestion(name, _TXT, _INTERNET))
    return question


def parse_txt(text: bytes) -> Sighting | None:
    """What a TXT record announces; None when it is not a peer that one could dial.

    All of its addresses have to agree on the peer, and its id on being an Ed25519 key's.
    """
    peer: str | None = None
    mesh: MeshId | None = None
    addresses: dict[Address, None] = {}
    for entry in _strings(text):
        key, _, value = entry.partition("=")
        if key == "mesh" and _MESH.fullmatch(value):
            mesh = MeshId(value)
        if key != "dnsaddr":
            continue
        address, _, named = value.rpartition("/p2p/")
        if peer is not None and named != peer:
            return None
        peer = named
        if _DIALABLE.fullmatch(address) and len(addresses) < ADDRESSES_MAX:
            addresses[Address(address)] = None
    if peer is None or not addresses:
        return None
    try:
        public_key_of(PeerId(peer))
    except ValueError:
        return None
    return Sighting(PeerId(peer), tuple(addresses), mesh)


def _strings(text: bytes) -> Iterable[str]:
    at = 0
    while at < len(text):
        size = text[at]
        yield text[at + 1 : at + 1 + size].decode("ascii", errors="replace")
        at += 1 + size


def _announcement(
    name: str, peer: PeerId, addresses: tuple[Address, ...], mesh: MeshId | None
) -> ServiceInfo | None:
    """What we say; None when nobody could dial us."""
    entries = [f"dnsaddr={address}/p2p/{peer}".encode() for address in addresses[:ADDRESSES_MAX]]
    if mesh is not None:
        entries.append(f"mesh={mesh}".encode())
    text = b"".join(
        bytes([len(entry)]) + entry for entry in entries if len(entry) <= TXT_STRING_BYTES_MAX
    )
    parts = [address.split("/") for address in addresses if _DIALABLE.fullmatch(address)]
    if not parts:
        return None
    return ServiceInfo(
        SERVICE,
        f"{name}.{SERVICE}",
        port=int(parts[0][4]),
        properties=text,
        server=f"{name}.local.",
        addresses=[ip_address(part[2]).packed for part in parts if part[1] in {"ip4", "ip6"}],
    )
