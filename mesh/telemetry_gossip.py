"""Saying what we are and how busy we are, and hearing the same of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

import structlog
import trio

from kowalski.mesh.candidates import OwnHot
from kowalski.mesh.core import announcements, topology
from kowalski.mesh.core.gossip_gaps import GossipGaps
from kowalski.mesh.core.latency import Latency
from kowalski.mesh.core.telemetry_view import TelemetryView
from kowalski.mesh.core.topology import Topology
from kowalski.mesh.gossip_reading import message_of
from kowalski.mesh.transport import Gossip, Transport
from kowalski.protocol import codec
from kowalski.protocol.ids import PeerId, Topic
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.telemetry import (
    Hot,
    HotDelta,
    Profile,
    RoundTrips,
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Self:
    """What this node says of itself; `profile` is given its sequence.

    `lasting` is the same but for what changes all the time: its sequence, addresses and hot values
    are not to be read. `own_hot` is that of `hot` which the choice of a peer looks at. Both are
    asked at each choice, and should cost next to nothing.
    """

    name: str
    boot: str
    profile: Callable[[int], Profile]
    hot: Callable[[], Hot]
    lasting: Callable[[], Profile] | None = None
    own_hot: Callable[[], OwnHot] | None = None

    def lasting_profile(self) -> Profile:
        return self.profile(0) if self.lasting is None else self.lasting()

    def hot_for_choice(self) -> OwnHot | Hot:
        return self.hot() if self.own_hot is None else self.own_hot()


class TelemetryGossip:
    """`on_boot` hears of which boot of which peer a message is, and its sequence.

    `latencies` are what we measured to each peer, `mesh_size` how many nodes there are: in a large
    mesh each speaks more seldom.
    """

    def __init__(
        self,
        transport: Transport,
        topic: Topic,
        about: Self,
        *,
        admits: Callable[[PeerId], bool],
        on_boot: Callable[[PeerId, str, int], None],
        params: announcements.Params,
        tick_s: float,
        latencies: Callable[[], Mapping[PeerId, Latency]] = dict,
        mesh_size: Callable[[], int] = lambda: 1,
    ) -> None:
        self.about = about
        self.view = TelemetryView()
        self.topology = Topology()
        self._transport = transport
        self._topic = topic
        self._admits = admits
        self._on_boot = on_boot
        self._params = params
        self._tick_s = tick_s
        self._latencies = latencies
        self._mesh_size = mesh_size
        self._sequence = 0
        self.sent = 0
        self.received = 0
        self.gaps = GossipGaps()

    def profile(self) -> Profile:
        """Ours as it is now, numbered after all that we have said."""
        self._sequence += 1
        return self.about.profile(self._sequence)

    def hear_profile(self, origin: PeerId, profile: Profile | None) -> None:
        if profile is not None:
            self.gaps.hear(origin, profile.boot, profile.sequence)
            self.view = self.view.hear_profile(origin, profile, trio.current_time())

    def hear_reply(self, peer: PeerId, hot: Hot | None) -> None:
        self.view = self.view.hear_reply(peer, hot, trio.current_time())

    async def listen(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Hear the topic until cancelled; ready once subscribed."""
        heard = await self._transport.subscribe(self._topic, admits=self._admits)
        task_status.started()
        async for gossip in heard:
            self._hear(gossip)

    def _hear(self, gossip: Gossip) -> None:
        origin, message = gossip.origin, message_of(gossip)
        # The most frequent first: to find that a message is of another kind takes longest.
        if not isinstance(message, HotDelta | RoundTrips | Profile):
            return
        self.received += 1
        self.gaps.hear(origin, message.boot, message.sequence)
        self._on_boot(origin, message.boot, message.sequence)
        if isinstance(message, HotDelta):
            self.view = self.view.hear_hot(origin, message, trio.current_time())
        elif isinstance(message, RoundTrips):
            self._hear_round_trips(origin, message)
        else:
            self.hear_profile(origin, message)

    def _hear_round_trips(self, origin: PeerId, told: RoundTrips) -> None:
        # Boots that ended are the view's to know; of one that it does not know, wait for a profile.
        known = self.view.peers.get(origin)
        if known is not None and known.profile.boot == told.boot:
            self.topology = self.topology.hear(origin, told, trio.current_time())

    def forget(self, peer: PeerId) -> None:
        """It is no member any more: drop its row."""
        self.topology = self.topology.forget(peer)
        self.gaps.forget(peer)

    async def announce(self) -> None:
        """Gossip our own as `core.announcements` says, until cancelled."""
        said: Hot | None = None
        said_at = profile_at = -inf
        told: dict[PeerId, float] | None = None
        told_at, rows = -inf, topology.Params()
        while True:
            now, hot, size = trio.current_time(), self.about.hot(), self._mesh_size()
            params = announcements.stretched(self._params, size)
            if now >= profile_at + params.profile_s:
                await self.announce_profile()
                said, said_at, profile_at = hot, now, now
            elif now >= announcements.hot_due_at(params, said, hot, said_at):
                self._sequence += 1
                delta = HotDelta(boot=self.about.boot, sequence=self._sequence, hot=hot)
                await self._publish(delta)
                said, said_at = hot, now
            latencies, times = self._latencies(), announcements.stretch(size)
            if now >= topology.row_due_at(rows, told, latencies, told_at, times=times):
                self._sequence += 1
                row = topology.own_paths(latencies, now)
                await self._publish(
                    RoundTrips(boot=self.about.boot, sequence=self._sequence, paths=row)
                )
                told, told_at = {path.peer: path.smooth_s for path in row}, now
            await trio.sleep(self._tick_s)

    async def announce_profile(self) -> None:
        """Gossip our profile now: languages or models have changed."""
        await self._publish(self.profile())

    async def _publish(self, message: Message) -> None:
        await self._transport.publish(self._topic, codec.encode(message))
        self.sent += 1
