"""Frames gone wrong, a million of them: `python -m tests.fuzz.frames` (`make fuzz`).

Each is a golden frame with something done to it, or nothing but noise. Every one goes through the
decoder and, torn as a network tears it, through the envelope reader; some go, between good
requests, to a node's open doors on a loopback network. Only the one error meant for it may come of
that, and soon. A seed repeats a run exactly.
"""

from __future__ import annotations

import argparse
import random
import secrets
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trio
import trio.testing

from kowalski.mesh.admission import JOIN_PROTOCOL, MEMBERSHIP_PROTOCOL
from kowalski.protocol import codec
from kowalski.protocol.errors import PeerUnreachableError, RemoteProtocolError
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.membership import Hello, Ready, Welcome
from tests.mesh.visitors import (
    ROOT,
    Clock,
    Member,
    Visitor,
    membership,
    open_member,
    open_visitor,
    open_wires,
    person,
    signed,
)
from tests.protocol import golden_frames
from tests.protocol.examples import BOOT, EXAMPLES

FRAMES = 1_000_000
DOOR_SHARE = 50
"""One frame in so many goes to a node as well."""
BATCH = 50
"""Frames on one stream before a good request has to be answered."""
SLOW_S = 1.0
NOISE_BYTES_MAX = 400

# What CBOR decoders have died of: long lengths, deep nesting, tags, indefinite things, odd floats.
NASTY = (
    b"\xff" * 8,
    b"\x9f",
    b"\xbf",
    b"\x5f\x41\x00\xff",
    b"\xc2\x49" + b"\xff" * 9,
    b"\xd8\x1c\x81\xd8\x1d\x00",
    b"\x9b" + b"\xff" * 8,
    b"\xbb\x7f" + b"\xff" * 7,
    b"\x7b" + b"\x7f" * 8,
    b"\x81" * 600,
    b"\xa1\x61a" * 200,
    b"\xf9\x7e\x00",
    b"\xfb\x7f\xf0" + bytes(6),
    b"\xf6",
    b"\xf8\x20",
    b"\xe0",
    b"\x1b" + b"\xff" * 8,
    b"\x62\xc3\x28",
    b"\xa2\x61a\x00\x61a\x01",
)


@dataclass
class Tally:
    """What came of the frames."""

    seed: int
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0


def bad_frames(draw: random.Random) -> Iterator[bytes]:
    good = [golden_frames.read(kind) for kind in sorted(EXAMPLES)]
    while True:
        frame = bytearray(draw.choice(good))
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            _spoil(frame, draw, good)
        yield bytes(frame)


def _spoil(frame: bytearray, draw: random.Random, good: list[bytes]) -> None:
    at = draw.randrange(len(frame) + 1)
    match draw.randrange(9):
        case 0 | 1:  # a bit
            if frame:
                frame[at % len(frame)] ^= 1 << draw.randrange(8)
        case 2:  # a byte
            if frame:
                frame[at % len(frame)] = draw.randrange(256)
        case 3:  # an end too early
            del frame[at:]
        case 4:  # something missing
            del frame[at : at + draw.randrange(1, 9)]
        case 5:  # something in between
            frame[at:at] = draw.choice(NASTY)
        case 6:  # something in place of something
            nasty = draw.choice(NASTY)
            frame[at : at + len(nasty)] = nasty
        case 7:  # the end of another one
            other = draw.choice(good)
            frame[at:] = other[draw.randrange(len(other)) :]
        case _:  # noise
            frame[:] = draw.randbytes(draw.randrange(NOISE_BYTES_MAX))


def decode(frame: bytes, tally: Tally) -> None:
    began = time.process_time()
    try:
        message = codec.decode(frame)
    except RemoteProtocolError:
        tally.outcomes["refused"] += 1
    else:
        assert isinstance(message, Message)
        codec.encode(message)  # what can be heard can be said
        tally.outcomes["understood"] += 1
    tally.slowest_s = max(tally.slowest_s, time.process_time() - began)


def tear(frame: bytes, draw: random.Random, tally: Tally) -> None:
    """A stream of a good envelope, this frame and one with a bent head, in pieces."""
    good = codec.seal(codec.Envelope(1, b"good"))
    head = bytearray(codec.seal(codec.Envelope(draw.randrange(codec.REQUEST_MAX + 1), frame)))
    if draw.randrange(4) == 0:
        struct.pack_into("!I", head, 0, draw.getrandbits(32))
    stream = good + bytes(head) + good
    reader = codec.EnvelopeReader()
    heard: list[codec.Envelope] = []
    at = 0
    try:
        while at < len(stream):
            size = draw.choice((1, 3, 64, 4096))
            heard += reader.feed(stream[at : at + size])
            at += size
    except RemoteProtocolError:
        tally.outcomes["torn"] += 1
    assert heard[:1] in ([], [codec.Envelope(1, b"good")])


def fuzz_codec(frames: int, tally: Tally) -> None:
    draw = random.Random(tally.seed)
    for _, frame in zip(range(frames), bad_frames(draw), strict=False):
        decode(frame, tally)
        tear(frame, draw, tally)


# --- the doors of a node ------------------------------------------------------------------------


async def fuzz_doors(frames: int, tally: Tally, folder: Path) -> None:
    """Bad frames to whatever a stranger and a member can reach, on virtual wires."""
    draw = random.Random(tally.seed + 1)
    bad = bad_frames(draw)
    home_is, guest_is = person("home"), person("guest")
    async with (
        open_wires("loopback") as wires,
        open_member(
            wires, home_is, membership(signed(home_is), ROOT), folder, unix_clock=Clock()
        ) as home,
    ):
        for _ in range(0, frames, BATCH):
            async with open_visitor(wires, guest_is, home) as guest:
                is_member = draw.randrange(2) == 0
                if is_member:
                    await _prove(guest)
                protocols = [MEMBERSHIP_PROTOCOL, JOIN_PROTOCOL]
                protocols += ["/kowalski/repl/1", "/kowalski/task/1"] if is_member else []
                await _knock(guest, draw.choice(protocols), bad, draw, tally)
            await _is_well(wires, home)


async def _prove(guest: Visitor) -> None:
    hello = Hello(certificate=signed(guest.identity), boot=BOOT, name="guest", addresses=())
    await guest.ask(MEMBERSHIP_PROTOCOL, hello, Ready())


async def _knock(
    guest: Visitor, protocol: str, bad: Iterator[bytes], draw: random.Random, tally: Tally
) -> None:
    try:
        stream = await guest.transport.open_stream(guest.home, protocol, timeout_s=5)
        for number in range(1, BATCH + 1):
            tally.outcomes["knocked"] += 1
            # Often as the next word of a request that began well.
            request = number if draw.randrange(2) else max(1, number - 1)
            envelope = codec.Envelope(request, next(bad), is_last=draw.randrange(20) == 0)
            data = bytearray(codec.seal(envelope))
            if draw.randrange(200) == 0:
                data[draw.randrange(8)] ^= 1 << draw.randrange(8)
            await stream.send(bytes(data))
        with trio.move_on_after(1):
            while await stream.receive():
                pass
        await stream.reset()
    except PeerUnreachableError:
        tally.outcomes["hung up on"] += 1


async def _is_well(wires: Any, home: Member) -> None:  # noqa: ANN401
    """A peer with manners is served as ever."""
    identity = person("polite")
    with trio.fail_after(10):
        async with open_visitor(wires, identity, home) as polite:
            hello = Hello(certificate=signed(identity), boot=BOOT, name="polite", addresses=())
            assert isinstance(await polite.ask(MEMBERSHIP_PROTOCOL, hello), Welcome)
            assert home.mesh.is_member(home.peer)


def run(frames: int, seed: int) -> Tally:
    tally = Tally(seed)
    fuzz_codec(frames, tally)
    with TemporaryDirectory() as folder:
        trio.run(
            fuzz_doors,
            frames // DOOR_SHARE,
            tally,
            Path(folder),
            clock=trio.testing.MockClock(autojump_threshold=0),
        )
    assert tally.slowest_s < SLOW_S, f"{tally.slowest_s:.3f} s for one frame"
    return tally


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m tests.fuzz.frames", description=__doc__)
    arguments.add_argument("--frames", type=int, default=FRAMES)
    arguments.add_argument("--seed", type=int, default=None)
    options = arguments.parse_args()
    seed = secrets.randbits(32) if options.seed is None else options.seed
    sys.stdout.write(f"seed {seed}, {options.frames} frames\n")
    sys.stdout.flush()
    began = time.monotonic()
    tally = run(options.frames, seed)
    told = ", ".join(f"{count} {what}" for what, count in sorted(tally.outcomes.items()))
    took_s = time.monotonic() - began
    sys.stdout.write(f"{told}; slowest {tally.slowest_s * 1000:.1f} ms; {took_s:.0f} s in all\n")


if __name__ == "__main__":
    import logging

    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    main()
