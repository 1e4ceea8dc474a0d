"""A node's mesh: who is here, what they are, and asking them things.

Puts the rooms of this folder together (connections, failure detection, trust, telemetry) and gives
rooms above one way to find a peer and talk to it. The local node is a peer like the others, reached
without a wire.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from typing import TypeVar

import trio

from kowalski.mesh import conversation
from kowalski.mesh.admission import Proven
from kowalski.mesh.asking import Asking
from kowalski.mesh.candidates import Candidates, Look
from kowalski.mesh.connections import Connections, Timeouts
from kowalski.mesh.conversation import Answer, Asker, Conversation, Request, open_asker
from kowalski.mesh.core import announcements, connectivity
from kowalski.mesh.core import failure_detector_events as detector
from kowalski.mesh.core import failure_detector_state as detector_state
from kowalski.mesh.core.connectivity import MemberConnected, MemberDisconnected
from kowalski.mesh.core.failure_detector_events import MemberChanged
from kowalski.mesh.core.latency import Latency, measure
from kowalski.mesh.core.membership import State
from kowalski.mesh.core.placement import Candidate, Kind, Need, Ranking, rank
from kowalski.mesh.core.topology import Row, own_paths
from kowalski.mesh.failure_detection import SWIM_PROTOCOL, FailureDetection, Neighbourhood
from kowalski.mesh.incarnations import IncarnationBook
from kowalski.mesh.invites import InviteBook
from kowalski.mesh.membership_certificates import Membership
from kowalski.mesh.peer_facts import PeerFacts, own_facts
from kowalski.mesh.sleep_watch import SleepWatch
from kowalski.mesh.telemetry_gossip import Self, TelemetryGossip
from kowalski.mesh.transport import Transport
from kowalski.mesh.trust import Keeping, Surroundings, Trust
from kowalski.mesh.twins import TwinWatch
from kowalski.protocol import ids
from kowalski.protocol.ids import Address, PeerId
from kowalski.protocol.limits import ADDRESSES_MAX
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.content import ContentAsked, ContentChunk
from kowalski.protocol.messages.membership import Welcome
from kowalski.protocol.messages.telemetry import Hot
from kowalski.protocol.messages.trust import KnownMember, Role

__all__ = ["CONTENT_PROTOCOL", "Mesh", "PeerFacts", "Timeouts", "Tuning", "open_mesh"]

M = TypeVar("M", bound=Message)

CONTENT_PROTOCOL = "/kowalski/content/1"

CONNECTIONS_HEAR: Mapping[
    State, type[connectivity.Suspected | connectivity.Vouched | connectivity.GivenUp]
] = {
    "suspect": connectivity.Suspected,
    "alive": connectivity.Vouched,
    "failed": connectivity.GivenUp,
}
"""What the mesh thinks of a peer is a reason to ask it; what it answers us decides."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """Times and limits, for those who want others; `clock_with_sleep` see `sleep_watch`."""

    connectivity: connectivity.Params = field(default_factory=connectivity.Params)
    detection: detector_state.Params = field(default_factory=detector_state.Params)
    timeouts: Timeouts = field(default_factory=Timeouts)
    clock_with_sleep: Callable[[], float] = trio.current_time


class Mesh:
    """Made by `open_mesh`."""

    def __init__(
        self,
        transport: Transport,
        membership: Membership,
        about: Self,
        invites: InviteBook,
        *,
        asker: Asker,
        nursery: trio.Nursery,
        unix_clock: Callable[[], float],
        tuning: Tuning,
        keeping: Keeping,
        around: Callable[[str, Answer], Answer],
    ) -> None:
        self.me = transport.peer
        self._around = around
        self._transport = transport
        self._about = about
        self._asker = asker
        self._nursery = nursery
        self.trust = Trust(
            transport,
            membership,
            invites,
            Surroundings(
                introduce=self._introduce,
                on_proven=self._on_proven,
                on_fallen=self._on_fallen,
                members=lambda: self._connections.members,
                is_member=lambda peer: self._connections.state.is_member(peer),  # noqa: PLW0108 it moves
            ),
            asker=asker,
            unix_clock=unix_clock,
            keeping=keeping,
        )
        self.twins = TwinWatch(
            self.me,
            lambda: transport.addresses,
            ask=self._prove_again,
            nursery=nursery,
        )
        self._rooms: dict[str, Answer] = {}
        self._asking = Asking(self.me, asker, self._rooms, nursery)
        self._listeners: list[Callable[[MemberConnected | MemberDisconnected], None]] = []
        self._membership_listeners: list[Callable[[MemberChanged], None]] = []
        self._candidates = Candidates()
        self._latencies: dict[PeerId, Latency] = {}
        self.telemetry = TelemetryGossip(
            transport,
            ids.topic(membership.mesh, "telemetry"),
            about,
            admits=self.trust.book.admits,
            on_boot=self.twins.heard,
            params=announcements.Params(),
            tick_s=tuning.timeouts.telemetry_tick_s,
            latencies=lambda: self._latencies,
            mesh_size=lambda: self.detection.table.living + 1,
        )
        self._connections = self._open_connections(membership, tuning)
        self.detection = self._open_detection(keeping, tuning)
        self.serve(SWIM_PROTOCOL, self.detection.answer)

    def _open_connections(self, membership: Membership, tuning: Tuning) -> Connections:
        return Connections(
            self._transport,
            membership.mesh,
            ask=self._ask_membership,
            tell=self._on_connection,
            asker=self._asker,
            nursery=self._nursery,
            params=tuning.connectivity,
            timeouts=tuning.timeouts,
            patience_s=lambda: detector_state.timeout_s(self.detection.state),
        )

    def _open_detection(self, keeping: Keeping, tuning: Tuning) -> FailureDetection:
        around = Neighbourhood(
            admits=self.trust.book.admits,
            known_members=self.trust.known_members,
            introduce=self._meet,
            on_changed=self._on_changed,
            on_missed=lambda peer: self._connections.handle(connectivity.Missed(peer)),
            on_spoke=lambda peer: self._connections.hear(connectivity.Spoke(peer)),
            on_measured=self._on_measured,
            on_back=lambda: self._connections.handle(connectivity.Woke()),
        )
        return FailureDetection(
            self.me,
            self._asker,
            around,
            IncarnationBook(keeping.incarnation_path),
            nursery=self._nursery,
            sleep_watch=SleepWatch(tuning.clock_with_sleep),
            params=tuning.detection,
        )

    async def _prove_again(self, peer: PeerId) -> None:
        await self._connections.ask_membership(peer)

    async def _ask_membership(self, peer: PeerId, timeout_s: float) -> None:
        await self.trust.admission.ask(peer, self._asker, timeout_s=timeout_s)

    # --- for the rooms above --------------------------------------------------------------------

    @property
    def membership(self) -> Membership:
        """Ours as it is; its certificate is renewed now and then."""
        return self.trust.membership

    def is_member(self, peer: PeerId) -> bool:
        """Whether it is connected, and its certificate has not ended meanwhile."""
        return peer == self.me or (
            self._connections.state.is_member(peer) and self.trust.book.admits(peer)
        )

    def is_routable(self, peer: PeerId) -> bool:
        """Whether requests can go there from here, now; what the mesh thinks is `state_of`."""
        return peer == self.me or self._connections.state.is_routable(peer)

    def state_of(self, peer: PeerId) -> State | None:
        """What the mesh thinks of it: alive, suspect, failed, left; None if it never heard of it.

        A peer may be alive and yet not routable from here, and the other way round for a moment.
        """
        return self.detection.table.state_of(peer)

    def addresses_of(self, peer: PeerId) -> tuple[Address, ...]:
        """Where it was last said to be; of ourselves, where we are."""
        here = peer == self.me
        return self._transport.addresses if here else self._connections.peer(peer).addresses

    def roles_of(self, peer: PeerId) -> tuple[str, ...]:
        """What its certificate lets it ask for; nothing for strangers."""
        return self.trust.book.roles(peer)

    def name_of(self, peer: PeerId) -> str:
        if peer == self.me:
            return self._about.name
        heard = self.telemetry.view.peers.get(peer)
        return heard.profile.name if heard else self.trust.book.name(peer)

    def listen(self, listener: Callable[[MemberConnected | MemberDisconnected], None]) -> None:
        """Call `listener`, which must not block, when we get or lose a connection to a member."""
        self._listeners.append(listener)

    def listen_to_membership(self, listener: Callable[[MemberChanged], None]) -> None:
        """Call `listener`, which must not block, when the mesh thinks differently of a member.

        `failed` is the mesh's verdict that it is gone; a lost connection alone is not.
        """
        self._membership_listeners.append(listener)

    def sighted(self, sighting: connectivity.Sighted) -> None:
        """Tell of an address: from discovery, the owner, or the last run."""
        self._connections.handle(sighting)

    def serve(
        self, protocol: str, answer: Answer, *, askers: frozenset[Role] | None = None
    ) -> None:
        """Answer requests of `protocol` by members, our own included.

        Only members whose certificate has one of the roles in `askers`, where that is given.
        """
        answer = self._around(protocol, answer)

        def admits(peer: PeerId) -> bool:
            self.trust.check_asker(peer, protocol, askers)
            return True

        async def checked(asking: Conversation, request: Message) -> Message:
            self.trust.check_asker(asking.peer, protocol, askers)
            return await answer(asking, request)

        self._rooms[protocol] = checked
        conversation.serve(self._transport, protocol, answer, admits=admits)

    def converse(
        self, peer: PeerId, protocol: str, request: Request, *, open_timeout_s: float = 5.0
    ) -> AbstractAsyncContextManager[Conversation]:
        """Ask `peer`, ourselves included; see `Asker.converse`."""
        return self._asking.converse(peer, protocol, request, open_timeout_s=open_timeout_s)

    async def request(
        self, peer: PeerId, protocol: str, request: Message, reply: type[M], *, timeout_s: float
    ) -> M:
        """Ask and await the one reply; see `Asker.request` for what is raised."""
        return await self._asking.request(peer, protocol, request, reply, timeout_s=timeout_s)

    async def hear_out(
        self,
        peer: PeerId,
        protocol: str,
        request: Request,
        reply: type[M],
        hear: Callable[[Message], None],
        *,
        until: float = inf,
    ) -> M:
        """Ask, and hear all that is said until the reply; see `Asking.hear_out`."""
        return await self._asking.hear_out(peer, protocol, request, reply, hear, until=until)

    async def request_chunk(
        self, peer: PeerId, asked: ContentAsked, *, timeout_s: float
    ) -> ContentChunk:
        return await self.request(peer, CONTENT_PROTOCOL, asked, ContentChunk, timeout_s=timeout_s)

    def rank(self, need: Need, *, excluding: frozenset[PeerId] = frozenset()) -> Ranking:
        """The peers that can do `need`, best first, ourselves among them."""
        return rank(need, self.candidates(), excluding=excluding)

    def hear_reply(self, peer: PeerId, hot: Hot | None) -> None:
        """Take the values that came with a reply."""
        self.telemetry.hear_reply(peer, hot)

    def doubt(self, peer: PeerId) -> None:
        """A request to it went unanswered: have it probed now. Evidence, and no verdict."""
        self.detection.handle(detector.RequestUnanswered(peer))

    def candidates(self, look: Look | None = None) -> tuple[Candidate, ...]:
        """Ourselves and the members that have told what they are. Asked for each request.

        In a large mesh those alone that `look` picks, where it is given.
        """
        state, about, view = self._connections.state, self._about, self.telemetry.view
        ours = about.lasting_profile(), about.hot_for_choice()
        found = [self._candidates.ourselves(self.me, about.name, *ours)]
        seen = look and self._candidates.looked_at(self.me, look, view, state.is_routable)
        for peer in seen or state.members:
            if (heard := view.peers.get(peer)) is None:
                continue
            latency = self._latencies.get(peer)
            found.append(
                self._candidates.peer(
                    peer,
                    heard.profile,
                    heard.hot,
                    rtt_s=latency.smooth_s if latency else None,
                    is_routable=state.is_routable(peer),
                    heard_at=heard.heard_at,
                    seen_chance=seen[peer] if seen else 1.0,
                )
            )
        return tuple(found)

    def sending(self, peer: PeerId, kind: Kind) -> AbstractContextManager[None]:
        """Count a request as on its way to `peer`, for the choices made meanwhile."""
        return self._candidates.sending(peer, kind)

    def facts(self) -> tuple[PeerFacts, ...]:
        """Everybody we know of, ourselves first."""
        known = dict.fromkeys((*self._connections.state.peers, *self.detection.table.members))
        return tuple(self.facts_of(peer) for peer in (self.me, *known))

    def facts_of(self, peer: PeerId) -> PeerFacts:
        """What we know of one peer; of one that was forgotten, that it is absent."""
        if peer == self.me:
            said = self._about.profile(0), self._transport.addresses
            return own_facts(self.detection.table, *said, warning=self.twins.warning(peer))
        now = trio.current_time()
        known = self._connections.peer(peer)
        heard = self.telemetry.view.peers.get(peer)
        routable = self._connections.state.is_routable(peer)
        state = "refused" if known.is_refused else known.standing.name.lower()
        member = self.detection.table.members.get(peer)
        latency = self._latencies.get(peer)
        return PeerFacts(
            peer=peer,
            name=self.name_of(peer),
            is_self=False,
            state=state,
            is_routable=routable,
            why_not=self.twins.warning(peer) or ("" if routable else known.why_not),
            addresses=known.addresses,
            roles=heard.profile.roles if heard else self.roles_of(peer),
            rtt_s=latency.smooth_s if latency else None,
            age_s=now - heard.heard_at if heard else None,
            profile=heard.profile if heard else None,
            hot=heard.hot if heard else None,
            membership=member.state if member else None,
            incarnation=member.incarnation if member else 0,
            membership_age_s=now - member.since if member else None,
            latency=latency,
        )

    # --- what we say and hear -------------------------------------------------------------------

    def _introduce(self) -> Welcome:
        return Welcome(
            certificate=self.membership.certificate,
            boot=self._about.boot,
            name=self._about.name,
            addresses=self._transport.addresses[:ADDRESSES_MAX],
            members=self.trust.known_members(),
            profile=self.telemetry.profile(),
            roster=self.trust.book.roster,
            incarnation=self.detection.table.incarnation,
        )

    def _on_proven(self, proven: Proven) -> None:
        peer, book = proven.peer, self.trust.book
        book.enter(peer, proven.signed, proven.certificate, proven.name)
        self.twins.met(peer, proven.boot, proven.addresses)
        self.telemetry.hear_profile(peer, proven.profile)
        self._connections.handle(connectivity.MembershipProven(peer, proven.addresses))
        self._meet(proven.members)
        self.detection.handle(detector.MemberMet(peer, proven.incarnation))

    def _meet(self, members: Iterable[KnownMember]) -> None:
        """Others tell us of these: believe their certificates, and look for them."""
        met = ((self.trust.book.meet(member), member.addresses) for member in members)
        sightings = tuple(connectivity.Sighted(peer, at) for peer, at in met if peer is not None)
        if sightings:
            self._connections.handle(connectivity.Introduced(sightings))

    def _on_fallen(self, peer: PeerId, why: str) -> None:
        self._connections.handle(connectivity.MembershipRefused(peer, why))
        self.detection.handle(detector.MemberExpelled(peer))
        self._latencies.pop(peer, None)
        self.telemetry.forget(peer)

    def _on_connection(self, change: MemberConnected | MemberDisconnected) -> None:
        if isinstance(change, MemberDisconnected):
            self._latencies.pop(change.peer, None)
            self._candidates.forget(change.peer)
            self.detection.handle(detector.ConnectionLost(change.peer))
        for listener in self._listeners:
            listener(change)

    def _on_changed(self, change: MemberChanged) -> None:
        if about := CONNECTIONS_HEAR.get(change.state):
            self._connections.handle(about(change.peer))
        for listener in self._membership_listeners:
            listener(change)

    def _on_measured(self, peer: PeerId, rtt_s: float) -> None:
        self._connections.hear(connectivity.Answered(peer))
        if self._connections.state.is_member(peer):
            before = self._latencies.get(peer)
            self._latencies[peer] = measure(before, rtt_s, trio.current_time())

    def topology(self) -> dict[PeerId, Row]:
        """What each peer last told of its round trips to the others, our own measurements first."""
        now = trio.current_time()
        paths = own_paths(self._latencies, now)
        ours = Row(self._about.boot, 0, {path.peer: path for path in paths}, now)
        return {self.me: ours, **self.telemetry.topology.rows}

    async def announce_profile(self) -> None:
        """Gossip our profile now: languages or models have changed."""
        await self.telemetry.announce_profile()

    async def leave(self) -> None:
        """Say goodbye, within half a second: the others need not find out by themselves."""
        await self.detection.leave()

    # --- the tasks of an open mesh --------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Live, until cancelled. Ready once strangers can be answered and gossip is heard."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.telemetry.listen)
            await nursery.start(self.trust.run)
            nursery.start_soon(self.telemetry.announce)
            nursery.start_soon(self._connections.run)
            nursery.start_soon(self.detection.run)
            task_status.started()


@asynccontextmanager
async def open_mesh(
    transport: Transport,
    membership: Membership,
    about: Self,
    invites: InviteBook,
    *,
    unix_clock: Callable[[], float],
    tuning: Tuning | None = None,
    keeping: Keeping | None = None,
    furnish: Callable[[Mesh, trio.Nursery], None] | None = None,
    around: Callable[[str, Answer], Answer] = lambda _protocol, answer: answer,
) -> AsyncIterator[Mesh]:
    """Be in the mesh for the length of the block.

    `around` is given what answers each protocol, and gives what shall answer in its place.
    `furnish` opens the rooms above, their tasks in the nursery given, before anybody can meet us:
    what we say of ourselves at a first meeting is then what we are.
    """
    async with open_asker(transport) as asker, trio.open_nursery() as nursery:
        mesh = Mesh(
            transport,
            membership,
            about,
            invites,
            asker=asker,
            nursery=nursery,
            unix_clock=unix_clock,
            tuning=tuning or Tuning(),
            keeping=keeping or Keeping(),
            around=around,
        )
        if furnish is not None:
            furnish(mesh, nursery)
        await nursery.start(mesh.run)
        yield mesh
        nursery.cancel_scope.cancel()
