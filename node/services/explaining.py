"""The room that tells why a task went where it did, and how this node asks others for that.

Its submitter knows whom it appointed, each of its coordinators where it sent the work. What they
remember is in their memory only: of a peer that is gone, the journal has the words but no inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from kowalski.mesh.conversation import Conversation
from kowalski.mesh.core.blame import Weather
from kowalski.mesh.core.decisions import Decision
from kowalski.mesh.mesh import Mesh
from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.core.explanations import appointment_told, decision_told
from kowalski.node.services.dispatch import Dispatch, Work
from kowalski.node.services.leading import SUBMITTERS
from kowalski.node.services.submitter import SubmitterRoom
from kowalski.protocol.errors import RemoteProtocolError
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages import explaining as wire
from kowalski.protocol.messages.base import Message

PROTOCOL = "/kowalski/explain/1"
REPLY_S = 10.0

RESTARTED = "it was started anew since; what it decided on before was in its memory only"
CLOCKS_S = 1.0
"""By which two peers may differ in how long ago something was."""


@dataclass(frozen=True, slots=True)
class By:
    """What one peer decided, and what it decided on."""

    peer: PeerId
    told: wire.DecisionTold


@dataclass(slots=True)
class Explanation:
    """`silent`: who may have decided something, but cannot say so, and why.

    `forgotten`: how many older choices for this task its peers no longer know.
    """

    appointments: list[wire.AppointmentTold] = field(default_factory=list[wire.AppointmentTold])
    decisions: list[By] = field(default_factory=list[By])
    silent: dict[PeerId, str] = field(default_factory=dict[PeerId, str])
    forgotten: dict[PeerId, int] = field(default_factory=dict[PeerId, int])
    remembers_s: dict[PeerId, float] = field(default_factory=dict[PeerId, float])
    """Since when who answered has remembered anything: it was begun anew then, or begun."""

    def in_order(self) -> list[By]:
        """The oldest first."""
        return sorted(self.decisions, key=lambda one: -one.told.age_s)


class Explaining:
    """Serves `/kowalski/explain/1`, and asks it of others."""

    def __init__(self, mesh: Mesh, dispatch: Dispatch, submitter: SubmitterRoom) -> None:
        self._mesh = mesh
        self._dispatch = dispatch
        self._submitter = submitter
        self._began_at = trio.current_time()

    async def answer(self, conversation: Conversation, request: Message) -> Message:
        if not isinstance(request, wire.ExplainAsked):
            raise RemoteProtocolError(f"{request.KIND} in a conversation about reasons")
        appointments, decisions = self._appointments(request), self.decisions(request)
        for told in (*appointments, *decisions):
            await conversation.send(told)
        return wire.Explained(
            task=request.task,
            appointments=len(appointments),
            decisions=len(decisions),
            forgotten=self._dispatch.decisions.forgotten_of(request.task),
            remembers_s=trio.current_time() - self._began_at,
        )

    def _appointments(self, request: wire.ExplainAsked) -> list[wire.AppointmentTold]:
        if request.submitter not in {None, self._mesh.me}:
            return []
        now, name_of = trio.current_time(), self._mesh.name_of
        return [
            appointment_told(request.task, made, now, name_of)
            for made in self._submitter.appointments.of(request.task)
        ]

    def decisions(self, request: wire.ExplainAsked) -> list[wire.DecisionTold]:
        """Those that were made here for a task."""
        return [
            told_now(work, decision)
            for work, decision in self._dispatch.decisions
            if work.task == request.task
            and request.submitter in {None, work.claim.submitter or self._mesh.me}
        ]

    def latest(self, count: int) -> Explanation:
        """The last choices that were made here, for whatever."""
        me, kept = self._mesh.me, self._dispatch.decisions.latest(count)
        return Explanation(decisions=[By(me, told_now(work, one)) for work, one in kept])

    async def explain(
        self, task: TaskId, submitter: PeerId, holder: PeerId, leader: PeerId | None
    ) -> Explanation:
        """Ask who holds the task, then whoever led it; `leader` is who leads it now, if known.

        All who may have led it are asked: a submitter that was restarted has forgotten them.
        """
        found = Explanation()
        asked = wire.ExplainAsked(task=task, submitter=submitter)
        await self._ask(holder, asked, found)
        led = {one.chosen for one in found.appointments}
        led |= set[PeerId]() if leader is None else {leader}
        others = {
            one.peer
            for one in self._mesh.facts()
            if one.is_self or (one.is_routable and "coordinate" in one.roles)
        }
        async with open_plain_nursery() as nursery:
            for peer in sorted((led | others) - {holder}):
                nursery.start_soon(self._ask, peer, asked, found)
        found.silent = {peer: why for peer, why in found.silent.items() if peer in led | {holder}}
        found.silent |= _begun_anew(found)
        return found

    async def _ask(self, peer: PeerId, asked: wire.ExplainAsked, found: Explanation) -> None:
        # What is told before a conversation breaks is as true as the rest of it.
        try:
            with trio.move_on_after(REPLY_S) as waiting:
                async with self._mesh.converse(peer, PROTOCOL, asked) as conversation:
                    while await self._hear(peer, conversation, found):
                        pass
        except Weather as error:
            found.silent[peer] = str(error)
        else:
            if waiting.cancelled_caught:
                found.silent[peer] = f"no answer within {REPLY_S:.0f} s"

    async def _hear(self, peer: PeerId, conversation: Conversation, found: Explanation) -> bool:
        match await conversation.receive():
            case wire.AppointmentTold() as told:
                found.appointments.append(told)
            case wire.DecisionTold() as told:
                found.decisions.append(By(peer, told))
            case wire.Explained(forgotten=forgotten, remembers_s=remembers_s):
                if forgotten:
                    found.forgotten[peer] = forgotten
                if remembers_s is not None:
                    found.remembers_s[peer] = remembers_s
                return False
            case other:
                raise RemoteProtocolError(f"{other.KIND} in answer to {wire.ExplainAsked.KIND}")
        return True


def _begun_anew(found: Explanation) -> dict[PeerId, str]:
    """Who has led the task, and has been restarted since."""
    return {
        one.chosen: RESTARTED
        for one in found.appointments
        if one.age_s > found.remembers_s.get(one.chosen, one.age_s) + CLOCKS_S
    }


def told_now(work: Work, decision: Decision) -> wire.DecisionTold:
    sizes = (one.bytes_total for one in work.content)
    return decision_told(decision, trio.current_time(), content_bytes=sizes)


def open_explaining(mesh: Mesh, dispatch: Dispatch, submitter: SubmitterRoom) -> None:
    """Serve those who ask, by the rule of who may look at tasks."""
    mesh.serve(PROTOCOL, Explaining(mesh, dispatch, submitter).answer, askers=SUBMITTERS)
