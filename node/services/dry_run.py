"""Where a task would go if it were submitted now: asked of the mesh, and nothing is begun.

Whoever would lead it is asked, since it decides on its own view, with its own round trips and what
it knows of peers; it asks for offers as for a real task, but no place is held. Where it cannot be
asked (gone by now, silent, or too old to know the question) this node says what it would do itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.conversation import Conversation
from kowalski.mesh.core import rendezvous
from kowalski.mesh.core.blame import Weather
from kowalski.mesh.core.placement import Need
from kowalski.mesh.mesh import Mesh
from kowalski.node.core.appointments import Appointment
from kowalski.node.core.task_needs import needs_of
from kowalski.node.services import session_inputs
from kowalski.node.services.dispatch import Chosen, Work
from kowalski.node.services.explaining import open_explaining, told_now
from kowalski.node.services.leading import SUBMITTERS
from kowalski.node.services.placed_work import PlacedWork
from kowalski.node.services.submitter import SubmitterRoom
from kowalski.protocol.errors import RemoteProtocolError, RequestFailedError
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages import rehearsing as wire
from kowalski.protocol.messages.base import Message, line
from kowalski.protocol.messages.explaining import DecisionTold
from kowalski.protocol.messages.inference import ChatMessage, CompletionAsked
from kowalski.protocol.messages.journal import Opened
from kowalski.protocol.messages.placement import Claim
from kowalski.protocol.messages.task import TaskSpec
from kowalski.rlm.opening import CannotOpen
from kowalski.rlm.session_state import SessionMode

PROTOCOL = "/kowalski/rehearse/1"
REPLY_S = 10.0

NOBODY_LEADS = CannotOpen("no_coordinator", "no peer offers to coordinate")
NOBODY_CAN = "no_peer"
ALL_FULL = "busy"


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """`appointment` None: nobody would lead it. `obstacle`: the first thing that is missing.

    `seen_by`: on whose view it was decided. Where that is not who would lead, `instead` says why.
    """

    appointment: Appointment | None
    opened: Opened | None
    decisions: tuple[DecisionTold, ...]
    obstacle: CannotOpen | None
    seen_by: PeerId
    instead: str = ""


async def rehearse(
    task: TaskId,
    spec: TaskSpec,
    *,
    mesh: Mesh,
    store: ContentStore,
    work: PlacedWork,
    submitter: SubmitterRoom,
) -> Rehearsal:
    """As whoever would lead it sees it; as this node does where that peer cannot be asked.

    Raises what `session_inputs.gather` raises; the inputs of `spec` are in `store`.
    """
    appointment, instead = _would_appoint(task, spec, submitter), ""
    if appointment is not None and appointment.chosen != mesh.me:
        try:
            return await _asked(task, spec, appointment, mesh)
        except Weather as error:
            instead = str(error)
    rehearsing = Rehearsing(mesh, store, work)
    opened, decisions = await rehearsing.rehearse(spec, mesh.me)
    return Rehearsal(
        appointment,
        opened if isinstance(opened, Opened) else None,
        decisions,
        NOBODY_LEADS if appointment is None else _obstacle(opened, decisions),
        seen_by=mesh.me,
        instead=instead,
    )


async def _asked(task: TaskId, spec: TaskSpec, appointment: Appointment, mesh: Mesh) -> Rehearsal:
    """What who would lead it says. Raises `Weather`, also where it does not answer in time."""
    leader, decisions = appointment.chosen, list[DecisionTold]()
    asked = wire.RehearsalAsked(task=task, spec=spec)
    with trio.move_on_after(REPLY_S):
        async with mesh.converse(leader, PROTOCOL, asked) as conversation:
            while True:
                match await conversation.receive():
                    case DecisionTold() as told:
                        decisions.append(told)
                    case wire.Rehearsed() as done:
                        return _rehearsal(done, appointment, tuple(decisions))
                    case other:
                        words = f"{other.KIND} in answer to {wire.RehearsalAsked.KIND}"
                        raise RemoteProtocolError(words)
    raise RequestFailedError("timeout", f"no answer within {REPLY_S:.0f} s")


def _rehearsal(
    done: wire.Rehearsed, appointment: Appointment, decisions: tuple[DecisionTold, ...]
) -> Rehearsal:
    modes: Mapping[str | None, SessionMode] = {"blocks": "blocks", "direct": "direct", "rlm": "rlm"}
    mode = modes.get(done.mode)
    return Rehearsal(
        appointment,
        None if mode is None else Opened(mode=mode, model=done.model, why=done.why),
        decisions,
        None if done.obstacle is None else CannotOpen(done.obstacle, done.detail),
        seen_by=appointment.chosen,
    )


class Rehearsing:
    """Serves `/kowalski/rehearse/1`: what this node would do with a task if it led it."""

    def __init__(self, mesh: Mesh, store: ContentStore, work: PlacedWork) -> None:
        self._mesh = mesh
        self._store = store
        self._work = work

    async def answer(self, conversation: Conversation, request: Message) -> Message:
        if not isinstance(request, wire.RehearsalAsked):
            raise RemoteProtocolError(f"{request.KIND} in a conversation about what would be")
        opened, decisions = await self.rehearse(request.spec, conversation.peer)
        for told in decisions:
            await conversation.send(told)
        obstacle = _obstacle(opened, decisions)
        missing = None if obstacle is None else obstacle.code
        detail = "" if obstacle is None else line(obstacle.detail)
        if not isinstance(opened, Opened):
            return wire.Rehearsed(task=request.task, obstacle=missing, detail=detail)
        return wire.Rehearsed(
            task=request.task,
            mode=opened.mode,
            model=opened.model,
            why=opened.why,
            obstacle=missing,
            detail=detail,
            decisions=len(decisions),
        )

    async def rehearse(
        self, spec: TaskSpec, submitter: PeerId
    ) -> tuple[Opened | CannotOpen, tuple[DecisionTold, ...]]:
        """How it would be opened here, and where its work would go. Holds no place anywhere."""
        mesh = self._mesh
        texts = await session_inputs.gather(spec, self._store, mesh)
        opened, _ = await session_inputs.open_now(spec, texts, mesh)
        if not isinstance(opened, Opened):
            return opened, ()
        decisions: list[DecisionTold] = []
        for need in needs_of(spec, opened):
            wanted = self._work_of(need, spec, submitter)
            chosen = await self._work.placing.dispatch.choose(
                wanted, remaining_s=spec.timeout_s, reserve_s=0.0, always_asks=True
            )
            decision = chosen.decision if isinstance(chosen, Chosen) else chosen
            decisions.append(told_now(wanted, decision))
        return opened, tuple(decisions)

    def _work_of(self, need: Need, spec: TaskSpec, submitter: PeerId) -> Work:
        claim = Claim(submitter=submitter, priority=spec.priority)
        if need.kind == "inference" and need.model is not None:
            asked = CompletionAsked(
                model=need.model,
                messages=(ChatMessage(role="user", content=spec.prompt),),
                max_tokens=spec.asking.reply_tokens,
                remaining_s=spec.timeout_s,
                claim=claim,
            )
            return self._work.model_work(asked, spec.devices)
        content = tuple(one.content for one in spec.inputs) if need.kind == "code" else ()
        return Work(need, claim=claim, content=content)


def open_reasons(
    mesh: Mesh, store: ContentStore, work: PlacedWork, submitter: SubmitterRoom
) -> None:
    """Serve those who ask why a task went where it did, and those who ask where one would go."""
    open_explaining(mesh, work.placing.dispatch, submitter)
    mesh.serve(PROTOCOL, Rehearsing(mesh, store, work).answer, askers=SUBMITTERS)


def _obstacle(
    opened: Opened | CannotOpen, decisions: tuple[DecisionTold, ...]
) -> CannotOpen | None:
    if isinstance(opened, CannotOpen):
        return opened
    for one in decisions:
        # What nobody else folds, whoever leads the task folds itself.
        if one.chosen is None and one.kind != "folding":
            code = NOBODY_CAN if one.retry_after_s is None else ALL_FULL
            return CannotOpen(code, one.why)
    return None


def _would_appoint(task: TaskId, spec: TaskSpec, submitter: SubmitterRoom) -> Appointment | None:
    weights = submitter.weights_of(spec)
    order = rendezvous.order(task, weights)
    if not order:
        return None
    return Appointment(trio.current_time(), 1, order[0], "", weights, standbys=order[1:3])
