"""Where a task would go if it were submitted now: asked of the mesh, and nothing is begun.

Peers are asked for offers and hold no place. What is seen is seen from this node: whoever leads the
task decides on its own view, with its own round trips.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.core import rendezvous
from kowalski.mesh.core.placement import Need
from kowalski.mesh.mesh import Mesh
from kowalski.node.core.appointments import Appointment
from kowalski.node.core.task_needs import needs_of
from kowalski.node.services import session_inputs
from kowalski.node.services.dispatch import Chosen, Work
from kowalski.node.services.explaining import told_now
from kowalski.node.services.placed_work import PlacedWork
from kowalski.node.services.submitter import SubmitterRoom
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.explaining import DecisionTold
from kowalski.protocol.messages.inference import ChatMessage, CompletionAsked
from kowalski.protocol.messages.journal import Opened
from kowalski.protocol.messages.placement import Claim
from kowalski.protocol.messages.task import TaskSpec
from kowalski.rlm.opening import CannotOpen

NOBODY_LEADS = CannotOpen("no_coordinator", "no peer offers to coordinate")
NOBODY_CAN = "no_peer"
ALL_FULL = "busy"


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """`appointment` None: nobody would lead it. `obstacle`: the first thing that is missing."""

    appointment: Appointment | None
    opened: Opened | None
    decisions: tuple[DecisionTold, ...]
    obstacle: CannotOpen | None


async def rehearse(
    task: TaskId,
    spec: TaskSpec,
    *,
    mesh: Mesh,
    store: ContentStore,
    work: PlacedWork,
    submitter: SubmitterRoom,
) -> Rehearsal:
    """Raises what `session_inputs.gather` raises; the inputs of `spec` are in `store`."""
    appointment = _would_appoint(task, spec, submitter)
    texts = await session_inputs.gather(spec, store, mesh)
    opened, _ = await session_inputs.open_now(spec, texts, mesh)
    decisions: list[DecisionTold] = []
    if isinstance(opened, Opened):
        for need in needs_of(spec, opened):
            wanted = _work_of(need, spec, work, mesh)
            chosen = await work.placing.dispatch.choose(
                wanted, remaining_s=spec.timeout_s, reserve_s=0.0, always_asks=True
            )
            decision = chosen.decision if isinstance(chosen, Chosen) else chosen
            decisions.append(told_now(wanted, decision))
    obstacle = NOBODY_LEADS if appointment is None else _obstacle(opened, decisions)
    return Rehearsal(
        appointment, opened if isinstance(opened, Opened) else None, tuple(decisions), obstacle
    )


def _obstacle(opened: Opened | CannotOpen, decisions: list[DecisionTold]) -> CannotOpen | None:
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


def _work_of(need: Need, spec: TaskSpec, work: PlacedWork, mesh: Mesh) -> Work:
    claim = Claim(submitter=mesh.me, priority=spec.priority)
    if need.kind == "inference" and need.model is not None:
        asked = CompletionAsked(
            model=need.model,
            messages=(ChatMessage(role="user", content=spec.prompt),),
            max_tokens=spec.asking.reply_tokens,
            remaining_s=spec.timeout_s,
            claim=claim,
        )
        return work.model_work(asked, spec.devices)
    content = tuple(one.content for one in spec.inputs) if need.kind == "code" else ()
    return Work(need, claim=claim, content=content)
