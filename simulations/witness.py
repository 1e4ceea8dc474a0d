"""Sees everything that happens in a world, from outside: wires, disks, and the steps of machines.

It keeps the hash of the trace, the last things that happened, and tells checkers. Nothing that is
seen is changed, and a checker that fails fails the story, never a node.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import count
from math import inf
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary
from zlib import crc32

import trio

from kowalski.mesh.loopback_streams import End
from kowalski.mesh.transport import Gossip
from kowalski.mesh.watching import Recorded
from kowalski.node.core.invariants import InvariantError
from kowalski.protocol import codec
from kowalski.protocol.errors import RemoteProtocolError
from kowalski.protocol.ids import PeerId, Topic
from kowalski.protocol.messages.base import Message
from simulations.virtual_time import NodeTime
from simulations.wires import StormyWires

EVENTS_KEPT = 400
FRAMES_KEPT = 2048
"""Between leaving and arriving: about as many as are under way."""

UNREAD_KINDS = frozenset(
    {
        b"membership/round-trip",
        b"telemetry/hot",
        b"telemetry/profile",
        b"swim/probe",
        b"swim/probe-answered",
        b"content/chunk",
        b"inference/delta",
        b"task/progress",
        b"repl/output",
    }
)
"""Many, and nothing is checked by them one by one: they are hashed and counted, not decoded."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise was broken."""

    invariant: str
    words: str
    at_s: float

    def __str__(self) -> str:
        return f"{self.invariant}: {self.words} (at {self.at_s:.3f} s)"


class Said(NamedTuple):
    """One message of one request, at one end of it. Times: the world's, and that end's own."""

    at_s: float
    own_s: float
    speaker: int
    hearer: int
    request: Hashable
    protocol: str
    message: Message
    by_asker: bool
    is_first: bool
    is_last: bool


class Checker(Protocol):
    """Hears what the witness sees. `NoChecker` has all of it, doing nothing."""

    def said(self, said: Said) -> None: ...
    def heard(self, said: Said) -> None: ...
    def stepped(
        self, number: int, driver: Recorded, event: object, effects: tuple[object, ...]
    ) -> None: ...
    def stored(self, number: int, method: str, arguments: tuple[object, ...]) -> None: ...
    def began(self, number: int) -> None: ...
    def ended(self, number: int) -> None: ...


class NoChecker:
    """Hears everything and has no opinion; checkers override what they care for."""

    def __init__(self, witness: Witness) -> None:
        self.witness = witness

    def said(self, said: Said) -> None:
        """A message leaves its speaker."""

    def heard(self, said: Said) -> None:
        """A message has arrived."""

    def stepped(
        self, number: int, driver: Recorded, event: object, effects: tuple[object, ...]
    ) -> None:
        """A machine of a node has stepped."""

    def stored(self, number: int, method: str, arguments: tuple[object, ...]) -> None:
        """A node has written to its ledger."""

    def began(self, number: int) -> None:
        """A node's process begins."""

    def ended(self, number: int) -> None:
        """A node's process has ended, one way or the other."""


@dataclass(slots=True)
class _Reading:
    """One direction of one stream."""

    reader: codec.EnvelopeReader = field(default_factory=codec.EnvelopeReader)
    is_readable: bool = True
    begun: set[int] = field(default_factory=set)


class Witness:
    """A `loopback_transport.Tap`; a `watching.Watcher` for each node; see `watch`."""

    def __init__(self) -> None:
        self._checkers: list[Checker] = []
        self._hearing: dict[str, list[Checker]] = {}
        self.violations: list[Violation] = []
        self.is_violated = trio.Event()
        self.evaluated: Counter[str] = Counter()
        """How often each invariant was looked at."""
        self.messages: Counter[str] = Counter()
        self.stream_bytes = 0
        self.gossip_bytes = 0
        self._events: deque[str | Said] = deque(maxlen=EVENTS_KEPT)
        """Words are made of what was said once somebody reads them: few are."""
        self.trace: list[str] | None = None
        self.recorders: dict[int, list[Recorded]] = {}
        """The machines of each node's present process, or its last one."""
        self._held: dict[int, dict[Recorded, _Held]] = {}
        """The same, with what has held of their states."""
        self._hash = hashlib.blake2b(digest_size=8)
        self._numbers: dict[PeerId, int] = {}
        self._times: dict[int, NodeTime] = {}
        self._wires: StormyWires
        self.conversations = count()
        """Numbers of those that nodes have with themselves: never twice, whatever is begun anew."""
        self._reading: dict[tuple[int, PeerId, bool], _Reading] = {}

    def engage(self, *checkers: Checker) -> None:
        """Let these hear what is seen from now on."""
        self._checkers += checkers
        self._hearing.clear()

    def _who_cares(self, about: str) -> list[Checker]:
        """Those that do something when they hear of it, in the order in which they came."""
        hearing = self._hearing.get(about)
        if hearing is None:
            nothing = getattr(NoChecker, about)
            hearing = self._hearing[about] = [
                one for one in self._checkers if getattr(type(one), about) is not nothing
            ]
        return hearing

    @property
    def last(self) -> tuple[Said | str, ...]:
        """What happened last; `in_words` tells it."""
        return tuple(self._events)

    def attend(self, wires: StormyWires, peers: list[PeerId]) -> None:
        """Begin to watch a world of these peers."""
        self._wires = wires
        self._numbers = {peer: number for number, peer in enumerate(peers)}
        self._times = {number: wires.times[peer] for peer, number in self._numbers.items()}

    @property
    def trace_hash(self) -> str:
        return self._hash.hexdigest()

    @property
    def now(self) -> float:
        return self._wires.now()

    def number_of(self, peer: PeerId) -> int:
        """Of a node; -1 for peers that are none."""
        return self._numbers.get(peer, -1)

    def own_time(self, number: int) -> float:
        """What a node's clock shows."""
        time = self._times.get(number)
        return self.now if time is None else time.read(self.now)

    def stood_still(self, number: int) -> tuple[float, float]:
        """Since when, and until when, a node does or did so last; in no such time at first."""
        time = self._times.get(number)
        return (inf, -inf) if time is None else (time.frozen_since, time.frozen_until)

    # --- for checkers and stories ---------------------------------------------------------------

    def check(self, invariant: str, *, holds: bool, words: str) -> None:
        """Count that an invariant was looked at; note a violation if it does not hold."""
        self.evaluated[invariant] += 1
        if not holds:
            self.violations.append(Violation(invariant, words, self.now))
            self.note(f"VIOLATION {invariant}: {words}")
            self.is_violated.set()

    def note(self, words: str) -> None:
        """Something to remember, in the trace and its hash."""
        line = f"{self.now:10.4f} {words}"
        self._hash.update(line.encode())
        self._events.append(line)
        if self.trace is not None:
            self.trace.append(line)

    # --- nodes ----------------------------------------------------------------------------------

    def began(self, number: int) -> None:
        self.recorders[number] = []
        self._held[number] = {}
        self.note(f"node {number} begins")
        for checker in self._who_cares("began"):
            checker.began(number)

    def ended(self, number: int) -> None:
        self.note(f"node {number} ends")
        for checker in self._who_cares("ended"):
            checker.ended(number)

    def watch(self, number: int) -> NodeWatcher:
        return NodeWatcher(self, number)

    def stored(self, number: int, method: str, arguments: tuple[object, ...]) -> None:
        """See `disks.DiskWatcher`."""
        for checker in self._who_cares("stored"):
            checker.stored(number, method, arguments)

    def stepped(
        self, number: int, driver: Recorded, event: object, effects: tuple[object, ...]
    ) -> None:
        held = self._held[number].get(driver)
        if held is None:
            held = self._held[number][driver] = _Held(*_checks_of(driver.machine))
            self.recorders[number].append(driver)
        if held.check is not None:
            try:
                if held.check_news is None:
                    held.check(driver.state)
                else:
                    held.news = held.check_news(driver.state, held.news)
            except (AssertionError, InvariantError) as broken:
                words = f"node {number}: {broken} after {event!r:.200}"
                self.check(held.name, holds=False, words=words)
            else:
                self.evaluated[held.name] += 1
        for checker in self._who_cares("stepped"):
            checker.stepped(number, driver, event, effects)

    # --- wires ----------------------------------------------------------------------------------

    def sent(self, sender: PeerId, end: End, data: bytes) -> None:
        """See `loopback_transport.Tap`."""
        speaker, hearer = self.number_of(sender), self.number_of(end.peer)
        mark = (self.now, speaker, hearer, end.number, len(data), crc32(data))
        self._hash.update(struct.pack("!diiIII", *mark))
        self.stream_bytes += len(data)
        for said in self._read(sender, end, data, is_arrival=False):
            self._tell_said(said)

    def arrived(self, sender: PeerId, end: End, data: bytes) -> None:
        """See `loopback_transport.Tap`."""
        for said in self._read(sender, end, data, is_arrival=True):
            for checker in self._who_cares("heard"):
                checker.heard(said)

    def gossiped(self, receiver: PeerId, topic: Topic, gossip: Gossip) -> None:
        """See `loopback_transport.Tap`."""
        del topic
        who = (self.number_of(gossip.origin), self.number_of(receiver))
        self._hash.update(struct.pack("!diiI", self.now, *who, crc32(gossip.data)))
        self.gossip_bytes += len(gossip.data)

    def _tell_said(self, said: Said) -> None:
        self._events.append(said)
        if self.trace is not None:
            self.trace.append(in_words(said))
        for checker in self._who_cares("said"):
            checker.said(said)

    def _read(self, sender: PeerId, end: End, data: bytes, *, is_arrival: bool) -> list[Said]:
        key = (end.number, sender, is_arrival)
        reading = self._reading.get(key)
        if reading is None:
            reading = self._reading[key] = _Reading()
        if not reading.is_readable:
            return []
        try:
            envelopes = reading.reader.feed(data)
        except RemoteProtocolError:
            reading.is_readable = False
            return []
        found: list[Said] = []
        for envelope in envelopes:
            if not is_arrival:
                self.messages[_kind(envelope.frame)] += 1
            is_first = end.is_ours and envelope.request not in reading.begun
            reading.begun.add(envelope.request)
            message = _decoded(envelope.frame)
            if message is not None:
                speaker, hearer = self.number_of(sender), self.number_of(end.peer)
                request = (end.number, envelope.request)
                own_s = self.own_time(hearer if is_arrival else speaker)
                found.append(
                    Said(
                        self.now,
                        own_s,
                        speaker,
                        hearer,
                        request,
                        end.protocol,
                        message,
                        by_asker=end.is_ours,
                        is_first=is_first,
                        is_last=envelope.is_last,
                    )
                )
            if envelope.is_last:
                reading.begun.discard(envelope.request)
        return found

    def said_to_itself(self, said: Said) -> None:
        self._tell_said(said)
        for checker in self._who_cares("heard"):
            checker.heard(said)


class NodeWatcher:
    """The `watching.Watcher` of one node."""

    def __init__(self, witness: Witness, number: int) -> None:
        self._witness = witness
        self._number = number
        self._conversations: WeakKeyDictionary[object, int] = WeakKeyDictionary()

    def stepped(
        self, driver: Recorded, event: object, now: float, effects: tuple[object, ...]
    ) -> None:
        """See `watching.Watcher`."""
        del now
        self._witness.stepped(self._number, driver, event, effects)

    def said_to_itself(
        self, me: PeerId, conversation: object, message: Message, *, by_asker: bool, is_last: bool
    ) -> None:
        """See `watching.Watcher`."""
        del me
        witness, number = self._witness, self._number
        witness.messages[f"{message.KIND} to itself"] += 1
        is_first = conversation not in self._conversations
        if is_first:
            self._conversations[conversation] = next(witness.conversations)
        request = ("itself", number, self._conversations[conversation])
        witness.said_to_itself(
            Said(
                witness.now,
                witness.own_time(number),
                number,
                number,
                request,
                "",
                message,
                by_asker=by_asker,
                is_first=is_first,
                is_last=is_last,
            )
        )


_Checks = tuple[Callable[[Any], None] | None, Callable[[Any, Any], object] | None, str]


@dataclass(slots=True)
class _Held:
    """Of one machine: what must hold of it, and, where it can do with the rest, what has held."""

    check: Callable[[Any], None] | None
    check_news: Callable[[Any, Any], object] | None
    name: str
    news: object = None


@cache
def _checks_of(machine: str) -> _Checks:
    """What a core says must hold after each step of it, where it says so, and how that is counted.

    `check_news` is the same as `check`, given what it has returned after the state before.
    """
    core = sys.modules[machine]
    check, check_news = (getattr(core, name, None) for name in ("check", "check_news"))
    return check, check_news, f"check {machine.rpartition('.')[2]}"


def _kind(frame: bytes) -> str:
    return _kind_bytes(frame).decode(errors="replace")


def _kind_bytes(frame: bytes) -> bytes:
    """The kind of a frame, without decoding it; `[version, "kind", ...]`, both short."""
    if len(frame) < 3 or frame[0] != 0x83:
        return b"?"
    head = frame[2]
    if 0x60 <= head < 0x78:
        return frame[3 : 3 + head - 0x60]
    return frame[4 : 4 + frame[3]] if head == 0x78 else b"?"


@lru_cache(maxsize=FRAMES_KEPT)
def _decoded(frame: bytes) -> Message | None:
    """Each is read as it leaves and as it arrives; a message never changes."""
    if _kind_bytes(frame) in UNREAD_KINDS:
        return None
    try:
        return codec.decode(frame)
    except RemoteProtocolError:
        return None


def in_words(said: Said | str) -> str:
    if isinstance(said, str):
        return said
    message = said.message
    return f"{said.at_s:10.4f} {said.speaker} -> {said.hearer} {message.KIND} {_gist(message)}"


def _gist(message: Message) -> str:
    """What of a message fits a line."""
    fields = (
        ("task", getattr(message, "task", None)),
        ("term", getattr(message, "term", None)),
        ("cell", getattr(message, "cell", None)),
        ("index", getattr(getattr(message, "entry", message), "index", None)),
        ("reason", getattr(message, "reason", None)),
        (
            "code",
            getattr(message, "code", None) if len(str(getattr(message, "code", ""))) < 40 else None,
        ),
    )
    return " ".join(f"{name}={value}" for name, value in fields if value is not None)
