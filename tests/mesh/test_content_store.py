from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.conversation import Asker, open_asker, serve
from kowalski.mesh.loopback_transport import open_loopback_network
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestRefusedError,
)
from kowalski.protocol.ids import ContentHash, PeerId, content_hash
from kowalski.protocol.limits import CONTENT_BYTES_MAX, CONTENT_CHUNK_BYTES
from kowalski.protocol.messages.content import ContentAsked, ContentChunk, ContentRef
from kowalski.protocol.messages.membership import RoundTrip
from tests.mesh.transport_promises import join

pytestmark = pytest.mark.trio

ME, ONE, TWO = PeerId("MMMMMMMM"), PeerId("AAAAAAAA"), PeerId("BBBBBBBB")
CONTENT = "/kowalski/content/1"
DATA = bytes(range(256)) * (3 * CONTENT_CHUNK_BYTES // 256) + b"and a little more"
REF = ContentRef(hash=content_hash(DATA), bytes_total=len(DATA), holders=(ONE, TWO))
PART = f"{REF.hash}.part"

Serve = Callable[[PeerId, ContentAsked], ContentChunk]


class Holders:
    """Peers that answer as they are told to; `asked` is what was asked of whom.

    Whatever comes after the first range waits for `gate`, if there is one.
    """

    def __init__(self, serve: Serve, gate: trio.Event | None = None) -> None:
        self.asked: list[tuple[PeerId, int]] = []
        self._serve = serve
        self._gate = gate

    async def request_chunk(
        self, peer: PeerId, asked: ContentAsked, *, timeout_s: float
    ) -> ContentChunk:
        assert timeout_s < 60
        await trio.lowlevel.checkpoint()
        if self._gate is not None and asked.offset:
            await self._gate.wait()
        self.asked.append((peer, asked.offset))
        return self._serve(peer, asked)


def honest(peer: PeerId, asked: ContentAsked, data: bytes = DATA) -> ContentChunk:
    piece = data[asked.offset : asked.offset + asked.bytes_max]
    return ContentChunk(data=piece, bytes_total=len(data))


def lying(peer: PeerId, asked: ContentAsked) -> ContentChunk:
    return ContentChunk(data=bytes(asked.bytes_max), bytes_total=len(DATA))


def gone(peer: PeerId, asked: ContentAsked) -> ContentChunk:
    raise PeerUnreachableError("nobody")


def each(one: Serve, two: Serve) -> Holders:
    return Holders(lambda peer, asked: (one if peer == ONE else two)(peer, asked))


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "content", ME)


def files(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "content").iterdir()}


# --- keeping ------------------------------------------------------------------------------------


async def test_what_is_put_can_be_read_by_its_hash(store: ContentStore, tmp_path: Path) -> None:
    ref = await store.put(b"hello")
    assert ref == ContentRef(hash=content_hash(b"hello"), bytes_total=5, holders=(ME,))
    assert await store.read(ref) == b"hello"
    (tmp_path / "file").write_bytes(b"hello")
    assert await store.put_file(tmp_path / "file") == ref
    assert files(tmp_path) == {ref.hash}


async def test_content_is_still_there_after_a_restart(tmp_path: Path) -> None:
    ref = await ContentStore(tmp_path, ME).put(b"hello")
    assert await ContentStore(tmp_path, ME).read(ref) == b"hello"


async def test_what_is_not_held_is_unknown(store: ContentStore) -> None:
    assert store.path(REF.hash) is None
    with pytest.raises(RequestRefusedError) as caught:
        await store.read(REF)
    assert caught.value.reason == "unknown"
    with pytest.raises(RequestRefusedError) as caught:
        await store.answer(Nobody(), asked())
    assert caught.value.reason == "unknown"


async def test_what_is_too_large_is_refused_unread(store: ContentStore, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(CONTENT_BYTES_MAX + 1)
    with pytest.raises(RequestRefusedError, match="too_large"):
        await store.put_file(tmp_path / "large")
    small = ContentStore(tmp_path / "small", ME, bytes_max=10)
    kept = await small.put(b"0123456789")
    for refused in (small.put(bytes(11)), small.fetch(REF, Holders(honest))):
        with pytest.raises(RequestRefusedError, match="too_large"):
            await refused
    assert await small.read(kept) == b"0123456789"


# --- making room --------------------------------------------------------------------------------


def age(store: ContentStore, name: str, seconds: float) -> None:
    """Let a file have been used for the last time so long ago."""
    path = store._folder / name
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


async def test_the_longest_unused_make_room(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "content", ME, bytes_max=30)
    one, two, three = [await store.put(bytes([n]) * 10) for n in range(3)]
    for ref, seconds in ((one, 300), (two, 200), (three, 100)):
        age(store, ref.hash, seconds)
    assert await store.read(one)  # used just now
    four = await store.put(b"4" * 10)
    assert files(tmp_path) == {one.hash, three.hash, four.hash}
    for ref, seconds in ((one, 20), (four, 10), (three, 1000)):
        age(store, ref.hash, seconds)
    await store.put(three_again := bytes([2]) * 10)
    assert content_hash(three_again) == three.hash
    await store.put(b"5" * 20)
    assert three.hash in files(tmp_path), "putting it again was a use"
    assert sum((tmp_path / "content" / name).stat().st_size for name in files(tmp_path)) <= 30


async def test_no_more_is_removed_than_has_to_be(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "content", ME, bytes_max=2 * len(DATA))
    kept = await store.put(b"x" * len(DATA))
    await store.fetch(REF, Holders(honest))
    assert files(tmp_path) == {kept.hash, REF.hash}


async def test_content_that_fills_the_store_can_be_fetched(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "content", ME, bytes_max=len(DATA))
    await store.put(b"old")
    path = await store.fetch(REF, Holders(honest))
    assert path.read_bytes() == DATA
    assert files(tmp_path) == {REF.hash}


async def test_a_fetch_under_way_is_never_removed(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "content", ME, bytes_max=len(DATA))
    gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.fetch, REF, Holders(honest, gate))
        while PART not in files(tmp_path):
            await trio.testing.wait_all_tasks_blocked(0.01)
        age(store, PART, 1000)
        with pytest.raises(RequestRefusedError, match="no_capacity"):
            await store.put(bytes(len(DATA)))
        assert PART in files(tmp_path)
        gate.set()
    assert await store.read(REF) == DATA


async def test_an_abandoned_part_makes_room_like_everything_else(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "content", ME, bytes_max=10)
    (tmp_path / "content" / PART).write_bytes(b"12345678")
    age(store, PART, 100)
    kept = await store.put(b"12345678")
    assert files(tmp_path) == {kept.hash}


async def test_a_file_that_is_being_read_stays_readable_when_it_makes_room(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "content", ME, bytes_max=10)
    ref = await store.put(b"12345678")
    path = store.path(ref.hash)
    assert path is not None
    with path.open("rb") as file:
        await store.put(b"abcdefgh")
        assert store.path(ref.hash) is None
        assert file.read() == b"12345678"


async def test_what_is_referred_to_makes_no_room_until_nobody_refers_to_it(
    tmp_path: Path,
) -> None:
    store = ContentStore(tmp_path / "content", ME, bytes_max=20)
    one, two = await store.put(b"1" * 10), await store.put(b"2" * 10)
    age(store, one.hash, 100)
    store.pin("task a", [one.hash])
    store.pin("task b", [one.hash])
    three = await store.put(b"3" * 10)
    assert files(tmp_path) == {one.hash, three.hash}, "though the other was used later"
    store.pin("task b", [three.hash])
    with pytest.raises(RequestRefusedError, match="of 20 bytes 20 are referred to"):
        await store.put(b"4")
    with pytest.raises(RequestRefusedError, match="no_capacity"):
        await store.fetch(two, Holders(lambda _, one: honest(ONE, one, b"2" * 10)))
    store.unpin("task a")
    with pytest.raises(RequestRefusedError, match="no_capacity"):
        await store.put(b"4")
    store.unpin("task b")
    await store.put(b"4")
    assert one.hash not in files(tmp_path)


async def test_what_nobody_refers_to_and_nobody_used_for_a_day_is_swept_away(
    tmp_path: Path,
) -> None:
    store = ContentStore(tmp_path / "content", ME)
    old, pinned, new = [await store.put(bytes([n])) for n in range(3)]
    (tmp_path / "content" / PART).write_bytes(b"of a fetch that nobody went on with")
    for name in (old.hash, pinned.hash, PART):
        age(store, name, 86_500)
    store.pin("task", [pinned.hash])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.sweep)
        while old.hash in files(tmp_path):
            await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    assert files(tmp_path) == {pinned.hash, new.hash}


# --- disks that are full ------------------------------------------------------------------------


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As a disk would be that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_disk_that_takes_no_more_refuses_and_is_left_as_it_was(
    store: ContentStore, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(DATA)
    with files_of_at_most(1000):
        for refused in (
            store.put(DATA),
            store.put_file(tmp_path / "file"),
            store.fetch(REF, Holders(honest)),
        ):
            with pytest.raises(RequestRefusedError, match="no_capacity: the disk takes no more"):
                await refused
    assert files(tmp_path) <= {PART}, "of a fetch stays what came"
    assert (await store.fetch(REF, Holders(honest))).read_bytes() == DATA


async def test_a_file_that_cannot_be_read_is_its_owners_to_hear_of(
    store: ContentStore, tmp_path: Path
) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(OSError, match=str(path)):
            await store.put_file(path)
    assert files(tmp_path) == set()


async def test_a_file_of_many_pieces_is_kept_whole(store: ContentStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    ref = await store.put_file(tmp_path / "file")
    assert ref == REF.model_copy(update={"holders": (ME,)})
    assert await store.read(ref) == DATA
    assert files(tmp_path) == {REF.hash}


async def test_many_puts_at_once_keep_the_limit(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "content", ME, bytes_max=100)
    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(store.put, bytes([number]) * 10)
    assert len(files(tmp_path)) == 10


# --- fetching -----------------------------------------------------------------------------------


async def test_it_is_pulled_range_after_range_from_the_first_holder(store: ContentStore) -> None:
    holders = Holders(honest)
    path = await store.fetch(REF, holders)
    assert path.read_bytes() == DATA
    assert holders.asked == [(ONE, n * CONTENT_CHUNK_BYTES) for n in range(4)]
    assert await store.fetch(REF, holders) == path
    assert len(holders.asked) == 4


async def test_content_of_no_bytes_is_fetched_without_asking(store: ContentStore) -> None:
    holders = Holders(gone)
    empty = ContentRef(hash=content_hash(b""), bytes_total=0, holders=(ONE,))
    assert (await store.fetch(empty, holders)).read_bytes() == b""


@pytest.mark.parametrize("bad", [gone, lying])
async def test_the_next_holder_is_tried(store: ContentStore, bad: Serve, tmp_path: Path) -> None:
    holders = each(bad, honest)
    assert (await store.fetch(REF, holders)).read_bytes() == DATA
    assert (TWO, 0) in holders.asked
    assert files(tmp_path) == {REF.hash}


async def test_when_all_fail_it_says_what_each_said_and_keeps_nothing_wrong(
    store: ContentStore, tmp_path: Path
) -> None:
    with pytest.raises(PeerUnreachableError) as caught:
        await store.fetch(REF, each(lying, gone))
    assert "AAAAAA: content" in str(caught.value)
    assert "another hash" in str(caught.value)
    assert "BBBBBB: nobody" in str(caught.value)
    assert REF.hash not in files(tmp_path)
    with pytest.raises(PeerUnreachableError, match="no peer is named"):
        await store.fetch(REF.model_copy(update={"holders": (ME,)}), Holders(honest))


async def test_an_interrupted_fetch_goes_on_where_it_stopped(store: ContentStore) -> None:
    def breaks_off(peer: PeerId, asked: ContentAsked) -> ContentChunk:
        return (gone if asked.offset >= 2 * CONTENT_CHUNK_BYTES else honest)(peer, asked)

    with pytest.raises(PeerUnreachableError):
        await store.fetch(REF, Holders(breaks_off))
    again = ContentStore(store._folder, ME)
    holders = Holders(honest)
    assert (await again.fetch(REF, holders)).read_bytes() == DATA
    assert holders.asked[0] == (ONE, 2 * CONTENT_CHUNK_BYTES)


async def test_wrong_bytes_from_a_holder_that_left_are_not_blamed_on_the_next(
    store: ContentStore,
) -> None:
    def lies_and_leaves(peer: PeerId, asked: ContentAsked) -> ContentChunk:
        return (gone if asked.offset else lying)(peer, asked)

    holders = each(lies_and_leaves, honest)
    assert (await store.fetch(REF, holders)).read_bytes() == DATA


@pytest.mark.parametrize(
    "left", [b"", DATA[:100], b"wrong", DATA + b"longer", bytes(len(DATA))], ids=len
)
async def test_whatever_part_was_left_the_right_bytes_come_out(
    store: ContentStore, tmp_path: Path, left: bytes
) -> None:
    (tmp_path / "content" / PART).write_bytes(left)
    assert (await store.fetch(REF, Holders(honest))).read_bytes() == DATA
    assert files(tmp_path) == {REF.hash}


@pytest.mark.parametrize("size", [0, CONTENT_CHUNK_BYTES])
async def test_a_holder_that_sends_nothing_or_too_much_is_given_up(
    store: ContentStore, size: int
) -> None:
    def odd(peer: PeerId, asked: ContentAsked) -> ContentChunk:
        return ContentChunk(data=bytes(size), bytes_total=len(DATA))

    small = ContentRef(hash=content_hash(b"x"), bytes_total=1, holders=(ONE,))
    with pytest.raises(PeerUnreachableError, match=f"{size} bytes for 1 asked"):
        await store.fetch(small, Holders(odd))


async def test_those_who_want_the_same_at_once_have_it_transferred_once(
    store: ContentStore,
) -> None:
    holders = Holders(honest)
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(store.fetch, REF, holders)
    assert len(holders.asked) == 4
    assert store._fetching == {}


async def waiting(store: ContentStore, holders: Holders, scope: trio.CancelScope) -> None:
    with scope:
        await store.fetch(REF, holders)


async def test_one_of_them_who_gives_up_waiting_disturbs_nobody(store: ContentStore) -> None:
    gate, impatient = trio.Event(), trio.CancelScope()
    holders = Holders(honest, gate)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.fetch, REF, holders)
        while not holders.asked:
            await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.start_soon(waiting, store, holders, impatient)
        await trio.testing.wait_all_tasks_blocked(0.01)
        impatient.cancel()
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.start_soon(store.fetch, REF, holders)
        await trio.testing.wait_all_tasks_blocked(0.01)
        gate.set()
    assert len(holders.asked) == 4


async def test_the_first_of_them_giving_up_leaves_the_rest_to_the_next(
    store: ContentStore,
) -> None:
    gate, impatient = trio.Event(), trio.CancelScope()
    holders = Holders(honest, gate)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiting, store, holders, impatient)
        while not holders.asked:
            await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.start_soon(store.fetch, REF, holders)
        await trio.testing.wait_all_tasks_blocked(0.01)
        impatient.cancel()
        await trio.testing.wait_all_tasks_blocked(0.01)
        gate.set()
    assert await store.read(REF) == DATA
    assert [offset // CONTENT_CHUNK_BYTES for _, offset in holders.asked] == [0, 1, 2, 3]


# --- serving ------------------------------------------------------------------------------------


class Nobody:
    """A conversation that nothing is said in."""

    peer = ONE

    async def send(self, message: object) -> None: ...
    async def receive(self) -> RoundTrip:
        return RoundTrip()


def asked(
    name: ContentHash = REF.hash, offset: int = 0, bytes_max: int = CONTENT_CHUNK_BYTES
) -> ContentAsked:
    return ContentAsked(hash=name, offset=offset, bytes_max=bytes_max)


async def test_ranges_are_served_as_asked_for(store: ContentStore) -> None:
    ref = await store.put(b"0123456789")
    for offset, bytes_max, data in (
        (0, 4, b"0123"),
        (8, 4, b"89"),
        (10, 4, b""),
        (99, 4, b""),
        (3, CONTENT_CHUNK_BYTES, b"3456789"),
    ):
        chunk = await store.answer(Nobody(), asked(ref.hash, offset, bytes_max))
        assert chunk == ContentChunk(data=data, bytes_total=10)
    with pytest.raises(RemoteProtocolError):
        await store.answer(Nobody(), RoundTrip())


class OverTheWire:
    """Fetches by real conversations."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def request_chunk(
        self, peer: PeerId, asked: ContentAsked, *, timeout_s: float
    ) -> ContentChunk:
        return await self._asker.request(peer, CONTENT, asked, ContentChunk, timeout_s=timeout_s)


async def test_content_travels_between_stores(tmp_path: Path) -> None:
    theirs, ours = ContentStore(tmp_path / "one", ONE), ContentStore(tmp_path / "me", ME)
    ref = await theirs.put(DATA)
    async with (
        open_loopback_network() as network,
        network.transport(ONE) as far,
        network.transport(ME) as near,
    ):
        serve(far, CONTENT, theirs.answer)
        await join(near, far)
        async with open_asker(near) as asker:
            path = await ours.fetch(ref, OverTheWire(asker))
            assert path.read_bytes() == DATA
            unknown = ContentRef(hash=content_hash(b"?"), bytes_total=1, holders=(ONE,))
            with pytest.raises(PeerUnreachableError, match="unknown"):
                await ours.fetch(unknown, OverTheWire(asker))
