"""What a session wants done, done: its model calls, cells, folds, and the sub-calls of its cells.

Each effect of `kowalski.rlm.session` ends in the event that answers it. Weather is an answer, too:
nothing here raises because a peer failed.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.core.blame import Weather
from kowalski.mesh.mesh import Mesh
from kowalski.node.services import session_inputs
from kowalski.node.services.placed_work import ANY_MODEL, PlacedWork
from kowalski.node.services.task_cells import CellLimits, Outlook, TaskCells
from kowalski.node.services.texts import fitting
from kowalski.protocol import ids
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import ContentHash, TaskId
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.base import line
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.folding import FoldAsked
from kowalski.protocol.messages.inference import ChatMessage, CompletionAsked
from kowalski.protocol.messages.placement import Claim
from kowalski.protocol.messages.repl import SubCall
from kowalski.protocol.messages.task import TaskSpec
from kowalski.rlm import session as machine

SUB_CALLS_AT_A_TIME = 16
LOOK_AGAIN_S = 1.0

NOBODY = frozenset({"no_peer", "peers_failed"})
"""Nobody has the model, or all who had it are gone."""


@dataclass(frozen=True, slots=True)
class Term:
    """The task that is worked at, in one term, and what its coordinator gives the hands."""

    task: TaskId
    term: Callable[[], int]
    """It rises when the submitter comes back and appoints the same peer again."""
    spec: TaskSpec
    session: Callable[[], machine.Session]
    """As it is now."""
    record: Callable[[journal.SessionEvent], None]
    """Journal something that steps no session by itself: a cell began, a sub-call was answered."""
    progress: Callable[..., None]
    until_lease_held: Callable[[], Awaitable[None]]
    """Nothing is sent to a peer before this has returned."""
    remaining_s: Callable[[], float]
    claim: Claim
    """In whose name the work queues at workers, and how urgent it is."""
    holders: Callable[[ContentRef], ContentRef]
    """A reference with all who hold it, as far as the coordinator knows."""


class SessionHands:
    def __init__(self, term: Term, *, mesh: Mesh, work: PlacedWork, store: ContentStore) -> None:
        self._term = term
        self._mesh = mesh
        self._work = work
        self._store = store
        self._sub_calls = trio.CapacityLimiter(SUB_CALLS_AT_A_TIME)
        self._cells = TaskCells(
            term.task,
            term.term,
            mesh=mesh,
            work=work,
            outlook=Outlook(term.record, term.progress, self.sub_call, term.until_lease_held),
            limits=CellLimits(term.spec, term.remaining_s, term.claim),
        )

    def hear(self, event: journal.SessionEvent) -> None:
        """Learn from the journal, before and while the task runs."""
        self._cells.hear(event)

    async def close_sessions(self, *, timeout_s: float) -> None:
        """Tell everybody who may hold a session of this task that it is over."""
        await self._cells.close_sessions(timeout_s=timeout_s)

    async def ask_model(
        self, effect: machine.AskModel
    ) -> journal.ModelReplied | journal.ModelFailed:
        term = self._term
        await term.until_lease_held()
        term.progress("asking", text=effect.purpose)
        started = trio.current_time()
        asked = CompletionAsked(
            task=term.task,
            term=term.term(),
            model=effect.model,
            messages=effect.messages,
            remaining_s=term.remaining_s(),
            claim=term.claim,
        )
        while True:
            try:
                reply = await self._work.complete(
                    asked,
                    on_delta=lambda text: term.progress("delta", text=text),
                    on_restart=lambda why: term.progress("restart", why=why),
                )
            except Weather as error:
                code = _code(error, "model_failed")
                if not await self._wait_for_somebody(code, error):
                    return journal.ModelFailed(call=effect.call, code=code, detail=line(str(error)))
                asked = asked.model_copy(update={"remaining_s": term.remaining_s()})
            else:
                break
        return journal.ModelReplied(
            call=effect.call,
            text=reply.text,
            model=reply.done.model,
            peer=reply.placed.peer,
            usage=reply.done.usage,
            duration_s=trio.current_time() - started,
        )

    async def _wait_for_somebody(self, code: str, error: Exception) -> bool:
        """Wait before asking again, in a task that queues, if nobody had the model."""
        if self._term.spec.failover != "queue" or code not in NOBODY:
            return False
        self._term.progress("note", text=f"waiting: {error}")
        await trio.sleep(LOOK_AGAIN_S)
        return True

    async def run_cell(self, effect: machine.RunCell) -> journal.CellFinished | journal.CellFailed:
        """Raises RequestRefusedError: `no_capacity`, the prompt cannot be kept as an input."""
        term = self._term
        inputs = await session_inputs.cell_inputs(
            term.spec, term.session().prompt_input, self._store
        )
        self._cells.inputs = tuple(
            one.model_copy(update={"content": term.holders(one.content)}) for one in inputs
        )
        return await self._cells.run(effect)

    async def fold(self, effect: machine.Fold) -> journal.Folded | journal.BudgetSpent:
        term = self._term
        await term.until_lease_held()
        try:
            original = await self._store.put(effect.text.encode())
            asked = FoldAsked(
                content=original,
                budget_tokens=effect.budget_tokens,
                remaining_s=term.remaining_s(),
                claim=term.claim,
            )
            folded = await self._work.fold(asked)
        except Weather as error:
            return journal.BudgetSpent(limit="window", detail=line(f"folding: {error}"))
        return journal.Folded(
            text=folded.text,
            original=original,
            source_tokens=folded.done.source_tokens,
            tokens=folded.done.tokens,
            peer=folded.placed.peer,
        )

    async def sub_call(self, call: SubCall) -> journal.SubCallAnswered:
        """Answer what a cell asks; cell and ordinal are left at 0."""
        prompt = ids.content_hash(call.prompt.encode())
        session = self._term.session()
        if call.kind == "history":
            contents = [message.content for message in session.history]
            text = fitting(json.dumps(contents))
            return journal.SubCallAnswered(cell=0, ordinal=0, prompt=prompt, text=text)
        if call.kind == "unfold":
            return await self._unfold(session, call, prompt)
        asked = CompletionAsked(
            task=self._term.task,
            term=self._term.term(),
            model=call.model or session.model or ANY_MODEL,
            messages=(ChatMessage(role="user", content=call.prompt),),
            remaining_s=self._term.remaining_s(),
            claim=self._term.claim,
        )
        try:
            async with self._sub_calls:
                await self._term.until_lease_held()
                reply = await self._work.complete(asked)
        except Weather as error:
            return journal.SubCallAnswered(
                cell=0, ordinal=0, prompt=prompt, model=call.model, error=line(str(error))
            )
        return journal.SubCallAnswered(
            cell=0,
            ordinal=0,
            prompt=prompt,
            model=reply.done.model,
            peer=reply.placed.peer,
            text=reply.text,
            usage=reply.done.usage,
        )

    async def _unfold(
        self, session: machine.Session, call: SubCall, prompt: ContentHash
    ) -> journal.SubCallAnswered:
        ref = next((fold for fold in session.folds if fold.hash == call.prompt), None)
        answered = journal.SubCallAnswered(cell=0, ordinal=0, prompt=prompt)
        if ref is None:
            error = f"no fold has the handle {call.prompt[:80]}"
            return answered.model_copy(update={"error": error})
        try:
            await self._store.fetch(self._term.holders(ref), self._mesh)
        except (PeerUnreachableError, RequestRefusedError) as lost:
            return answered.model_copy(update={"error": line(str(lost))})
        text = (await self._store.read(ref)).decode(errors="replace")
        return answered.model_copy(update={"text": fitting(text)})


def _code(error: Exception, otherwise: str) -> str:
    if isinstance(error, RequestRefusedError):
        return error.reason
    if isinstance(error, RequestFailedError):
        return error.code
    return otherwise
