"""The room of copies: what this node holds of the journals that it leads or stands by for.

It takes what coordinators offer, our own included, fetches in its own time what the entries refer
to, and tells a later coordinator what followed the entries that it has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import takewhile

import structlog
import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.conversation import Conversation
from kowalski.mesh.core.blame import Weather
from kowalski.mesh.mesh import Mesh
from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.copy_storage import CopyStorage
from kowalski.node.core import copy_desk
from kowalski.node.core.copy_desk import Copy, CopyDesk, Offer
from kowalski.node.core.fences import TaskKey
from kowalski.node.core.portions import ENTRIES_MAX, portion
from kowalski.node.database import Counted, StorageError, Whose
from kowalski.node.services.fence_book import FenceBook
from kowalski.node.services.wanted_contents import WantedContents
from kowalski.protocol.errors import RemoteProtocolError, RequestRefusedError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages import copies as wire
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.task import Digest, Entry
from kowalski.rlm.journal import check_chain, event_of
from kowalski.rlm.references import refs_of

log = structlog.get_logger(__name__)

PROTOCOL = "/kowalski/copies/1"
FIND_S = 1.5
"""How long a new coordinator waits for what others may hold."""

CONTENTS_AFTER_S = 5.0
"""Contents are fetched once a task has lasted so long: most are over before."""

TIDY_S = 600.0
RETRY_AFTER_S = 30.0


class CopyRoom:
    """Serves `/kowalski/copies/1`, and the coordinations of this node."""

    def __init__(
        self,
        mesh: Mesh,
        storage: CopyStorage,
        store: ContentStore,
        fences: FenceBook,
        *,
        unix_clock: Callable[[], float],
    ) -> None:
        self._mesh = mesh
        self._storage = storage
        self._fences = fences
        self._unix_clock = unix_clock
        self._desk = CopyDesk()
        self._contents = WantedContents(store, mesh)
        for copy in storage.copies():
            self._desk = replace(self._desk, copies={**self._desk.copies, copy.key: copy})
            self._fences.hear(copy.key, copy.term)
            self._contents.want(
                _owner(copy.key), storage.contents(copy.key), after_s=CONTENTS_AFTER_S
            )

    @property
    def copies(self) -> tuple[Copy, ...]:
        return tuple(self._desk.copies.values())

    # --- for coordinators elsewhere -------------------------------------------------------------

    async def answer(self, conversation: Conversation, request: Message) -> Message:
        await trio.lowlevel.checkpoint()
        match request:
            case wire.CopyOffered():
                return self._offered(conversation.peer, request)
            case wire.CopyAsked():
                return self._asked(request)
            case wire.CopyDropped():
                key = (request.submitter, request.task)
                self._fences.hear(key, request.term)
                self.drop(key)
                return request
            case _:
                raise RemoteProtocolError(f"{request.KIND} in a copies conversation")

    def _offered(self, peer: PeerId, offered: wire.CopyOffered) -> wire.CopyHeld:
        key = (offered.submitter, offered.task)
        self._fences.hear(key, offered.term)
        offer = Offer(
            key, offered.term, offered.start, offered.parent, offered.entries, offered.inputs
        )
        try:
            held = self.keep(offer, holder=peer)
        except StorageError as full:
            raise RequestRefusedError("no_capacity", str(full), RETRY_AFTER_S) from full
        digest = self._desk.copies[key].digest_before(held) if key in self._desk.copies else None
        return wire.CopyHeld(
            task=offered.task,
            entries=held,
            digest=digest or offered.parent,
            has_contents=not self.lacks(key),
        )

    def _asked(self, asked: wire.CopyAsked) -> wire.CopyFound:
        key = (asked.submitter, asked.task)
        self._fences.hear(key, asked.term)
        entries = portion(self.following(key, asked.start, asked.parent, limit=ENTRIES_MAX))
        return wire.CopyFound(task=asked.task, entries=entries)

    # --- for this node's own coordinations ------------------------------------------------------

    def keep(self, offer: Offer, *, holder: PeerId | None = None) -> int:
        """Take what is offered; how many entries of that chain are held now.

        Raises:
            RequestRefusedError: `no_capacity`, one task may not have so much.
            StorageError: the disk refuses.
            RemoteProtocolError: the entries are no chain.
        """
        desk, decision = copy_desk.hear_offer(self._desk, offer, self._unix_clock())
        match decision:
            case copy_desk.Behind(entries=entries):
                return entries
            case copy_desk.Full(size_bytes=size):
                raise RequestRefusedError("no_capacity", f"a journal of {size} bytes")
            case copy_desk.Keep():
                refs = _with_holder(_referred_to(offer), holder)
                self._storage.keep(decision, refs)
                self._desk = desk
                for key in decision.forgotten:
                    self._forget(key)
                self._contents.want(_owner(offer.key), refs, after_s=CONTENTS_AFTER_S)
                return offer.start + len(offer.entries)

    @property
    def journalled(self) -> Counter[tuple[Whose, Counted]]:
        """See `CopyStorage.journalled`."""
        return self._storage.journalled

    def held(self, key: TaskKey) -> Copy | None:
        return self._desk.copies.get(key)

    def following(
        self, key: TaskKey, start: int, parent: Digest, *, limit: int = 1_000_000
    ) -> list[Entry]:
        """What is held here that follows the `start` entries that end in `parent`."""
        if not copy_desk.has_more(self._desk, key, start, parent):
            return []
        try:
            return self._storage.entries(key, start, limit)
        except StorageError as error:
            log.warning("copy-not-read", task=key[1], error=str(error))
            return []

    def lacks(self, key: TaskKey) -> int:
        """How many contents that its copy refers to are not here yet."""
        return self._contents.lacks(_owner(key))

    async def find(
        self, key: TaskKey, term: int, start: int, parent: Digest, holders: Iterable[PeerId]
    ) -> list[Entry]:
        """The longest chain that follows, of those that are held here or by `holders`."""
        found: list[list[Entry]] = []

        async def ask(holder: PeerId) -> None:
            entries: list[Entry] = []
            found.append(entries)
            submitter, task = key
            asked = wire.CopyAsked(
                task=task, term=term, submitter=submitter, start=start, parent=parent
            )
            try:
                await self._pull(holder, asked, entries)
            except Weather as error:
                log.debug("copy-not-had", task=key[1], peer=holder, why=str(error))

        with trio.move_on_after(FIND_S):
            async with open_plain_nursery() as nursery:
                for holder in holders:
                    if holder != self._mesh.me and self._mesh.is_member(holder):
                        nursery.start_soon(ask, holder)
        # Our own may be of this very term, from before this process was started.
        here = self.following(key, start, parent)
        return max(here, *(_before_term(entries, term) for entries in found), [], key=len)

    async def _pull(self, holder: PeerId, asked: wire.CopyAsked, entries: list[Entry]) -> None:
        """Append what `holder` has to `entries`, which is a chain at any moment."""
        while True:
            reply = await self._mesh.request(
                holder, PROTOCOL, asked, wire.CopyFound, timeout_s=FIND_S
            )
            if not reply.entries:
                return
            parent = check_chain(asked.task, reply.entries, parent=asked.parent, index=asked.start)
            entries += reply.entries
            at = asked.start + len(reply.entries)
            asked = asked.model_copy(update={"start": at, "parent": parent})

    def drop(self, key: TaskKey) -> None:
        """Nobody needs this copy any more."""
        if key in self._desk.copies:
            self._forget(key)
            try:
                self._storage.drop([key])
            except StorageError as error:
                log.warning("copy-not-dropped", task=key[1], error=str(error))

    def _forget(self, key: TaskKey) -> None:
        self._desk = copy_desk.forget(self._desk, key)
        self._contents.forget(_owner(key))

    async def run(self) -> None:
        """Fetch what copies refer to, and forget old ones; until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._contents.run)
            nursery.start_soon(self._expire)

    async def _expire(self) -> None:
        while True:
            for key in copy_desk.expired(self._desk, self._unix_clock()):
                log.info("copy-expired", task=key[1])
                self.drop(key)
            await trio.sleep(TIDY_S)


def _before_term(entries: list[Entry], term: int) -> list[Entry]:
    """Nobody else has written in our term: what claims so is no journal of ours."""
    return list(takewhile(lambda entry: entry.term < term, entries))


def _owner(key: TaskKey) -> str:
    return f"copy {key[0]} {key[1]}"


def _referred_to(offer: Offer) -> list[ContentRef]:
    refs = [one.content for one in offer.inputs]
    for entry in offer.entries:
        refs += refs_of(event_of(entry))
    return refs


def _with_holder(refs: Iterable[ContentRef], holder: PeerId | None) -> list[ContentRef]:
    """Whoever leads the task has most of it, or knows where it is."""
    if holder is None:
        return list(refs)
    return [
        ref.model_copy(update={"holders": tuple(dict.fromkeys((*ref.holders, holder)))[:8]})
        for ref in refs
    ]
