"""A node's mesh: who is here, what they are, and asking them things.

The shell around `core.connectivity`: it dials, proves and measures as that says, and gives rooms
above one way to find a peer and talk to it. The local node is a peer like the others, reached
without a wire.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import structlog
import trio

from kowalski.mesh import conversation
from kowalski.mesh.admission import (
    MEMBERSHIP_PROTOCOL,
    MembershipError,
    Proven,
)
from kowalski.mesh.conversation import Answer, Asker, Conversation, Request, open_asker
from kowalski.mesh.core import announcements, connectivity
from kowalski.mesh.core.connectivity import Connectivity, MemberArrived, MemberLeft
from kowalski.mesh.core.placement import Candidate, Kind, Need, Ranking, rank
from kowalski.mesh.driver import Driver
from kowalski.mesh.invites import InviteBook
from kowalski.mesh.membership_certificates import Membership
from kowalski.mesh.own_conversation import converse_with_ourselves
from kowalski.mesh.peer_facts import PeerFacts
from kowalski.mesh.telemetry_gossip import Self, TelemetryGossip
from kowalski.mesh.transport import Connected, Transport
from kowalski.mesh.trust import Keeping, Surroundings, Trust
from kowalski.mesh.twins import TwinWatch
from kowalski.protocol import ids
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import Address, PeerId
from kowalski.protocol.limits import ADDRESSES_MAX
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.content import ContentAsked, ContentChunk
from kowalski.protocol.messages.membership import RoundTrip, Welcome
from kowalski.protocol.messages.telemetry import Hot, Occupancy, Profile
from kowalski.protocol.messages.trust import Role

__all__ = ["CONTENT_PROTOCOL", "Mesh", "PeerFacts", "Timeouts", "open_mesh"]

log = structlog.get_logger(__name__)

M = TypeVar("M", bound=Message)

CONTENT_PROTOCOL = "/kowalski/content/1"
DIALS_AT_A_TIME = 8


@dataclass(frozen=True, slots=True)
class Timeouts:
    dial_s: float = 3.0
    membership_s: float = 5.0
    measure_s: float = 2.0
    telemetry_tick_s: float = 0.5


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
        params: connectivity.Params,
        timeouts: Timeouts,
        keeping: Keeping,
        around: Callable[[str, Answer], Answer],
    ) -> None:
        self.me = transport.peer
        self._around = around
        self._transport = transport
        self._about = about
        self._asker = asker
        self._nursery = nursery
        self._unix_clock = unix_clock
        self._timeouts = timeouts
        self.trust = Trust(
            transport,
            membership,
            invites,
            Surroundings(
                introduce=self._introduce,
                on_proven=self._on_proven,
                on_fallen=self._on_fallen,
                members=self._members,
            ),
            asker=asker,
            unix_clock=unix_clock,
            keeping=keeping,
        )
        self.twins = TwinWatch(
            self.me, lambda: transport.addresses, ask=self._ask_membership, nursery=nursery
        )
        self._rooms: dict[str, Answer] = {}
        self._listeners: list[Callable[[MemberArrived | MemberLeft], None]] = []
        self._in_flight: dict[tuple[PeerId, Kind], list[float]] = {}
        """When each request that is still on its way or under way was sent."""
        self._dials = trio.CapacityLimiter(DIALS_AT_A_TIME)
        self._telemetry = TelemetryGossip(
            transport,
            ids.topic(membership.mesh, "telemetry"),
            about,
            admits=self.trust.book.admits,
            on_boot=self.twins.heard,
            params=announcements.Params(),
            tick_s=timeouts.telemetry_tick_s,
        )
        self._driver: Driver[Connectivity, connectivity.Event, connectivity.Effect] = Driver(
            Connectivity(self.me, membership.mesh, params),
            step=connectivity.step,
            wake_at=connectivity.wake_at,
            time_passed=connectivity.TimePassed(),
            perform=self._perform,
        )

    # --- for the rooms above --------------------------------------------------------------------

    @property
    def membership(self) -> Membership:
        """Ours as it is; its certificate is renewed now and then."""
        return self.trust.membership

    def is_member(self, peer: PeerId) -> bool:
        """Whether it is connected, and its certificate has not ended meanwhile."""
        return peer == self.me or (
            self._driver.state.is_member(peer) and self.trust.book.admits(peer)
        )

    def is_routable(self, peer: PeerId) -> bool:
        return peer == self.me or self._driver.state.is_routable(peer)

    def roles_of(self, peer: PeerId) -> tuple[str, ...]:
        """What its certificate lets it ask for; nothing for strangers."""
        return self.trust.book.roles(peer)

    def name_of(self, peer: PeerId) -> str:
        if peer == self.me:
            return self._about.name
        heard = self._telemetry.view.peers.get(peer)
        return heard.profile.name if heard else self.trust.book.name(peer)

    def listen(self, listener: Callable[[MemberArrived | MemberLeft], None]) -> None:
        """Call `listener`, which must not block, whenever a member comes or goes."""
        self._listeners.append(listener)

    def sighted(self, sighting: connectivity.Sighted) -> None:
        """Tell of an address: from discovery, the owner, or the last run."""
        self._driver.handle(sighting)

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

    @asynccontextmanager
    async def converse(
        self, peer: PeerId, protocol: str, request: Request, *, open_timeout_s: float = 5.0
    ) -> AsyncIterator[Conversation]:
        """Ask `peer`, ourselves included; see `Asker.converse`."""
        if peer != self.me:
            async with self._asker.converse(
                peer, protocol, request, open_timeout_s=open_timeout_s
            ) as asked:
                yield asked
        elif protocol not in self._rooms:
            raise RequestRefusedError("unsupported", f"{protocol} is not served here")
        else:
            message = request if isinstance(request, Message) else await request()
            async with converse_with_ourselves(
                self.me, self._rooms[protocol], message, self._nursery
            ) as asked:
                yield asked

    async def request(
        self, peer: PeerId, protocol: str, request: Message, reply: type[M], *, timeout_s: float
    ) -> M:
        """Ask and await the one reply; see `Asker.request` for what is raised."""
        with trio.move_on_after(timeout_s):
            async with self.converse(peer, protocol, request, open_timeout_s=timeout_s) as asked:
                answer = await asked.receive()
            if not isinstance(answer, reply):
                raise RemoteProtocolError(f"{answer.KIND} in answer to {request.KIND}")
            return answer
        raise PeerUnreachableError(f"no answer to {request.KIND} within {timeout_s:.3g} s")

    async def request_chunk(
        self, peer: PeerId, asked: ContentAsked, *, timeout_s: float
    ) -> ContentChunk:
        return await self.request(peer, CONTENT_PROTOCOL, asked, ContentChunk, timeout_s=timeout_s)

    def rank(self, need: Need, *, excluding: frozenset[PeerId] = frozenset()) -> Ranking:
        """The peers that can do `need`, best first, ourselves among them."""
        return rank(need, self.candidates(), excluding=excluding)

    @contextmanager
    def sending(self, peer: PeerId, kind: Kind) -> Iterator[None]:
        """Count a request as on its way to `peer`, for the choices made meanwhile."""
        started, sent_at = self._in_flight.setdefault((peer, kind), []), trio.current_time()
        started.append(sent_at)
        try:
            yield
        finally:
            started.remove(sent_at)

    def hear_reply(self, peer: PeerId, hot: Hot | None) -> None:
        """Take the values that came with a reply."""
        self._telemetry.hear_reply(peer, hot)

    def candidates(self) -> tuple[Candidate, ...]:
        facts = (self.facts_of(peer) for peer in (self.me, *self._driver.state.members))
        return tuple(self._candidate(one, one.profile) for one in facts if one.profile)

    def _candidate(self, facts: PeerFacts, profile: Profile) -> Candidate:
        hot = facts.hot or profile.hot
        occupancy: dict[Kind, Occupancy] = {
            "code": hot.repl,
            "inference": hot.inference,
            "folding": hot.folding,
        }
        return Candidate(
            peer=facts.peer,
            name=facts.name,
            roles=frozenset(facts.roles),
            languages=frozenset(language.name for language in profile.languages),
            models=frozenset(model.name for model in profile.models),
            occupancy=occupancy,
            memory_used=hot.memory_used,
            tokens_per_s=dict(hot.tokens_per_s),
            rtt_s=facts.rtt_s,
            is_routable=facts.is_routable,
            own_in_flight={
                kind: self._unheard_of(facts, kind, at) for kind, at in occupancy.items()
            },
            is_self=facts.is_self,
            paused="" if facts.is_self else hot.paused,
            speed=profile.speed,
            warm=frozenset(model.name for model in profile.models if model.is_warm),
        )

    def _unheard_of(self, facts: PeerFacts, kind: Kind, at: Occupancy) -> int:
        """How many of our requests the peer's values cannot tell of yet."""
        sent = self._in_flight.get((facts.peer, kind), [])
        if facts.is_self:
            # Our own values are never stale; only what has not reached its room is missing.
            return max(0, len(sent) - at.running - at.queued)
        heard_at = trio.current_time() - (facts.age_s or 0.0)
        return sum(sent_at >= heard_at for sent_at in sent)

    def facts(self) -> tuple[PeerFacts, ...]:
        """Everybody we know of, ourselves first."""
        return tuple(self.facts_of(peer) for peer in (self.me, *self._driver.state.peers))

    def facts_of(self, peer: PeerId) -> PeerFacts:
        """What we know of one peer; of one that was forgotten, that it is absent."""
        if peer == self.me:
            profile = self._about.profile(0)
            return PeerFacts(
                peer=peer,
                name=self._about.name,
                is_self=True,
                state="member",
                is_routable=True,
                why_not=self.twins.warning(peer),
                addresses=self._transport.addresses,
                roles=profile.roles,
                rtt_s=0.0,
                age_s=0.0,
                profile=profile,
                hot=self._about.hot(),
            )
        known = self._driver.state.peers.get(peer) or connectivity.Peer(peer)
        heard = self._telemetry.view.peers.get(peer)
        routable = self._driver.state.is_routable(peer)
        state = "refused" if known.is_refused else known.standing.name.lower()
        return PeerFacts(
            peer=peer,
            name=self.name_of(peer),
            is_self=False,
            state=state,
            is_routable=routable,
            why_not=self.twins.warning(peer) or ("" if routable else known.complaint or state),
            addresses=known.addresses,
            roles=heard.profile.roles if heard else self.roles_of(peer),
            rtt_s=known.rtt_s,
            age_s=trio.current_time() - heard.heard_at if heard else None,
            profile=heard.profile if heard else None,
            hot=heard.hot if heard else None,
        )

    # --- performing what the core decides -------------------------------------------------------

    def _perform(self, effect: connectivity.Effect) -> None:
        match effect:
            case connectivity.Dial():
                self._nursery.start_soon(self._dial, effect)
            case connectivity.AskMembership(peer=peer):
                self._nursery.start_soon(self._ask_membership, peer)
            case connectivity.Measure(peer=peer):
                self._nursery.start_soon(self._measure, peer)
            case connectivity.HangUp(peer=peer, why=why):
                log.info("hang-up", peer=peer, why=why)
                self._nursery.start_soon(self._transport.disconnect, peer)
            case MemberArrived(peer=peer):
                self._transport.admit(peer)
                log.info("member-arrived", peer=peer, name=self.name_of(peer))
                self._tell(effect)
            case MemberLeft(peer=peer):
                self._transport.dismiss(peer)
                log.info("member-left", peer=peer, name=self.name_of(peer))
                self._tell(effect)

    def _tell(self, effect: MemberArrived | MemberLeft) -> None:
        for listener in self._listeners:
            listener(effect)

    async def _dial(self, dial: connectivity.Dial) -> None:
        complaint = "no address"
        for address in dial.addresses:
            try:
                async with self._dials:
                    await self._transport.connect(
                        dial.peer, address, timeout_s=self._timeouts.dial_s
                    )
            except PeerUnreachableError as error:
                complaint = f"{address}: {error}"
            else:
                # Unless it was lost again, and told of, before this task came to run.
                if dial.peer in self._transport.connections:
                    self._driver.handle(connectivity.ConnectionOpened(dial.peer))
                    return
                complaint = f"{address}: it hung up"
        self._driver.handle(connectivity.DialFailed(dial.peer, complaint))

    async def _ask_membership(self, peer: PeerId) -> None:
        timeout_s = self._timeouts.membership_s
        try:
            with trio.move_on_after(timeout_s) as patience:
                await self.trust.admission.ask(peer, self._asker, timeout_s=timeout_s)
            if patience.cancelled_caught:
                self._driver.handle(connectivity.AskingFailed(peer, "it did not answer"))
        except MembershipError as no:
            self._driver.handle(connectivity.MembershipRefused(peer, str(no)))
        except (PeerUnreachableError, RemoteProtocolError, RequestFailedError) as weather:
            self._driver.handle(connectivity.AskingFailed(peer, str(weather)))

    async def _measure(self, peer: PeerId) -> None:
        started = trio.current_time()
        try:
            await self._asker.request(
                peer,
                MEMBERSHIP_PROTOCOL,
                RoundTrip(),
                RoundTrip,
                timeout_s=self._timeouts.measure_s,
            )
        except (
            PeerUnreachableError,
            RemoteProtocolError,
            RequestFailedError,
            RequestRefusedError,
        ) as missed:
            log.debug("measure-missed", peer=peer, why=str(missed))
            self._driver.handle(connectivity.MeasureMissed(peer))
        else:
            self._driver.handle(connectivity.Measured(peer, trio.current_time() - started))

    # --- what we say and hear -------------------------------------------------------------------

    def _introduce(self) -> Welcome:
        return Welcome(
            certificate=self.membership.certificate,
            boot=self._about.boot,
            name=self._about.name,
            addresses=self._transport.addresses[:ADDRESSES_MAX],
            members=self.trust.known_members(),
            profile=self._telemetry.profile(),
            roster=self.trust.book.roster,
        )

    def _members(self) -> dict[PeerId, tuple[Address, ...]]:
        peers = self._driver.state.peers
        return {peer: peers[peer].addresses for peer in self._driver.state.members}

    def _on_proven(self, proven: Proven) -> None:
        book = self.trust.book
        book.enter(proven.peer, proven.signed, proven.certificate, proven.name)
        self.twins.met(proven.peer, proven.boot, proven.addresses)
        self._telemetry.hear_profile(proven.peer, proven.profile)
        self._driver.handle(connectivity.MembershipProven(proven.peer, proven.addresses))
        for member in proven.members:
            if peer := book.meet(member):
                self.sighted(connectivity.Sighted(peer, member.addresses))

    def _on_fallen(self, peer: PeerId, why: str) -> None:
        self._driver.handle(connectivity.MembershipRefused(peer, why))

    async def announce_profile(self) -> None:
        """Gossip our profile now: languages or models have changed."""
        await self._telemetry.announce_profile()

    # --- the tasks of an open mesh --------------------------------------------------------------

    async def _follow_connections(self) -> None:
        async for event in self._transport.connection_events:
            if isinstance(event, Connected):
                self._driver.handle(connectivity.ConnectionOpened(event.peer))
            else:
                self._driver.handle(connectivity.ConnectionClosed(event.peer))

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Live, until cancelled. Ready once strangers can be answered and gossip is heard."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._telemetry.listen)
            await nursery.start(self.trust.run)
            nursery.start_soon(self._telemetry.announce)
            nursery.start_soon(self._driver.run)
            nursery.start_soon(self._follow_connections)
            for peer in self._transport.connections:
                self._driver.handle(connectivity.ConnectionOpened(peer))
            task_status.started()


@asynccontextmanager
async def open_mesh(
    transport: Transport,
    membership: Membership,
    about: Self,
    invites: InviteBook,
    *,
    unix_clock: Callable[[], float],
    params: connectivity.Params | None = None,
    timeouts: Timeouts | None = None,
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
            params=params or connectivity.Params(),
            timeouts=timeouts or Timeouts(),
            keeping=keeping or Keeping(),
            around=around,
        )
        if furnish is not None:
            furnish(mesh, nursery)
        await nursery.start(mesh.run)
        yield mesh
        nursery.cancel_scope.cancel()
