"""Contents that are wanted are pinned at once and fetched in time."""

from __future__ import annotations

import pytest
import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.node.services.wanted_contents import AGAIN_S, WantedContents
from kowalski.protocol.errors import PeerUnreachableError
from kowalski.protocol.ids import PeerId, content_hash
from kowalski.protocol.messages.content import ContentAsked, ContentChunk, ContentRef
from simulations.virtual_time import JumpingClock
from tests.node.services.rooms import PatientClock, until

pytestmark = pytest.mark.trio

ME, HOLDER = PeerId("12D3KooWme111111"), PeerId("12D3KooWhoLder11")
DATA = {name: name * 10 for name in (b"one", b"two")}
REFS = [
    ContentRef(hash=content_hash(data), bytes_total=len(data), holders=(HOLDER,))
    for data in DATA.values()
]


class Holder:
    """Has what it is told to have; counts what it is asked."""

    def __init__(self) -> None:
        self.has = {content_hash(data): data for data in DATA.values()}
        self.asked = 0

    async def request_chunk(
        self, peer: PeerId, asked: ContentAsked, *, timeout_s: float
    ) -> ContentChunk:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        if asked.hash not in self.has:
            raise PeerUnreachableError("it is gone")
        data = self.has[asked.hash]
        return ContentChunk(data=data[asked.offset :], bytes_total=len(data))


@pytest.fixture
def virtual_time() -> JumpingClock:
    return PatientClock()


@pytest.fixture
def holder() -> Holder:
    return Holder()


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> ContentStore:
    return ContentStore(tmp_path_factory.mktemp("content"), ME)


async def test_what_is_wanted_is_fetched_after_a_while_and_once(
    virtual_time: JumpingClock, store: ContentStore, holder: Holder, nursery: trio.Nursery
) -> None:
    wanted = WantedContents(store, holder)
    nursery.start_soon(wanted.run)
    began = trio.current_time()
    wanted.want("task", REFS, after_s=5.0)
    assert wanted.lacks("task") == 2
    await until(lambda: wanted.lacks("task") == 0)
    assert 5.0 <= trio.current_time() - began < 7.0
    wanted.want("task", REFS, after_s=0.0)
    await trio.sleep(30)
    assert holder.asked == 2
    assert all(store.path(ref.hash) for ref in REFS)


async def test_what_nobody_has_is_asked_for_again_less_and_less_often(
    virtual_time: JumpingClock, store: ContentStore, holder: Holder, nursery: trio.Nursery
) -> None:
    wanted = WantedContents(store, holder)
    nursery.start_soon(wanted.run)
    lost = holder.has.pop(REFS[1].hash)
    wanted.want("task", REFS, after_s=0.0)
    await trio.sleep(100 * AGAIN_S)
    assert wanted.lacks("task") == 1
    assert holder.asked < 12
    holder.has[REFS[1].hash] = lost
    await until(lambda: wanted.lacks("task") == 0, within_s=1000)


async def test_what_is_forgotten_is_neither_fetched_nor_kept(
    virtual_time: JumpingClock, store: ContentStore, holder: Holder, nursery: trio.Nursery
) -> None:
    wanted = WantedContents(store, holder)
    nursery.start_soon(wanted.run)
    wanted.want("task", REFS, after_s=5.0)
    wanted.want("other", REFS[:1], after_s=5.0)
    wanted.forget("task")
    await trio.sleep(30)
    assert store.path(REFS[0].hash)
    assert store.path(REFS[1].hash) is None
    assert REFS[0].hash in store._pins
    wanted.forget("other")
    assert REFS[0].hash not in store._pins
