"""What a session wants done, done: its model calls, cells, folds, and the sub-calls of its cells.

Each effect of `kowalski.rlm.session` ends in the event that answers it. Weather is an answer, too:
nothing here raises because a peer failed.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.core.blame import Weather
from kowalski.mesh.mesh import Mesh
from kowalski.node.services import session_inputs
from kowalski.node.services.placed_work import ANY_MODEL, Attempts, Completion, PlacedWork
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
from kowalski.protocol.messages.inference import ChatMessage, CompletionAsked, Sampling
from kowalski.protocol.messages.placement import Claim
from kowalski.protocol.messages.repl import SubCall
from kowalski.protocol.messages.task import TaskSpec
from kowalski.rlm import session as machine

SUB_CALLS_AT_A_TIME = 16
LOOK_AGAIN_S = 1.0
SEEDS = 2**31
"""Servers take seeds of 32 bits."""

NOBODY = frozenset({"no_peer", "peers_failed"})
"""Nobody has the model, or all who had it are gone."""


def _unheard(_told: str) -> None:
    pass


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

    async def do(
        self, effect: machine.AskModel | machine.RunCell | machine.Fold
    ) -> journal.SessionEvent:
        match effect:
            case machine.AskModel():
                return await self.ask_model(effect)
            case machine.RunCell():
                return await self.run_cell(effect)
            case machine.Fold():
                return await self.fold(effect)

    async def ask_model(
        self, effect: machine.AskModel
    ) -> journal.ModelReplied | journal.ModelFailed:
        term = self._term
        term.progress("asking", text=effect.purpose)
        started = trio.current_time()
        asked = self._asked(effect.model, effect.messages, effect.call, effect.json_schema)
        attempts = Attempts()
        # Slots of a batch would show their words all mixed up.
        shows = effect.purpose not in ("draft", "part")
        while True:
            try:
                reply = await self._complete(
                    asked,
                    attempts,
                    on_delta=lambda text: term.progress("delta", text=text) if shows else None,
                    on_restart=lambda why: term.progress("restart", why=why),
                )
            except Weather as error:
                code = _code(error, "model_failed")
                if not await self._wait_for_somebody(code, error):
                    return journal.ModelFailed(
                        call=effect.call,
                        code=code,
                        detail=line(str(error)),
                        attempts=attempts.sent,
                    )
                asked = asked.model_copy(update={"remaining_s": term.remaining_s()})
            else:
                break
        return journal.ModelReplied(
            call=effect.call,
            text=reply.text,
            model=reply.done.model,
            peer=reply.placed.peer,
            usage=reply.done.usage,
            attempts=attempts.sent,
            duration_s=trio.current_time() - started,
        )

    def _asked(
        self,
        model: str,
        messages: tuple[ChatMessage, ...],
        number: int,
        json_schema: str | None = None,
    ) -> CompletionAsked:
        """A model call of this task; its number makes its seed another than its neighbours'."""
        term, asking = self._term, self._term.spec.asking
        seed = (term.spec.seed + number) % SEEDS if term.spec.seed else None
        return CompletionAsked(
            task=term.task,
            term=term.term(),
            model=model,
            messages=messages,
            max_tokens=asking.reply_tokens,
            temperature=asking.temperature,
            sampling=Sampling(seed=seed),
            json_schema=json_schema,
            remaining_s=term.remaining_s(),
            claim=term.claim,
        )

    async def _complete(
        self,
        asked: CompletionAsked,
        attempts: Attempts,
        *,
        on_delta: Callable[[str], None] = _unheard,
        on_restart: Callable[[str], None] = _unheard,
    ) -> Completion:
        """Raises `Weather`. What no server can do, and the answer does not need, is left out."""
        ask = partial(
            self._work.complete,
            attempts=attempts,
            on_delta=on_delta,
            on_restart=on_restart,
            as_of_now=self._as_of_now,
        )
        try:
            return await ask(asked)
        except Weather as error:
            # The shape of an answer is asked for in words, too, and checked.
            less = asked.model_copy(update={"json_schema": None, "sampling": Sampling()})
            if _code(error, "") != "unsupported" or less == asked:
                raise
            return await ask(less)

    async def _as_of_now(self, asked: CompletionAsked) -> CompletionAsked:
        """The request as it may be sent: once the lease allows it, in the term that is then."""
        term = self._term
        await term.until_lease_held()
        return asked.model_copy(update={"term": term.term(), "remaining_s": term.remaining_s()})

    async def _fold_as_of_now(self, asked: FoldAsked) -> FoldAsked:
        await self._term.until_lease_held()
        return asked.model_copy(update={"remaining_s": self._term.remaining_s()})

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
        try:
            original = await self._store.put(effect.text.encode())
            asked = FoldAsked(
                content=original,
                budget_tokens=effect.budget_tokens,
                remaining_s=term.remaining_s(),
                claim=term.claim,
            )
            folded = await self._work.fold(asked, as_of_now=self._fold_as_of_now)
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
        model = call.model or self._term.spec.asking.sub_model or session.model or ANY_MODEL
        message = ChatMessage(role="user", content=call.prompt)
        attempts = Attempts()
        started = trio.current_time()
        try:
            async with self._sub_calls:
                reply = await self._complete(self._asked(model, (message,), 0), attempts)
        except Weather as error:
            return journal.SubCallAnswered(
                cell=0,
                ordinal=0,
                prompt=prompt,
                model=call.model,
                error=line(str(error)),
                code=_code(error, "failed"),
                attempts=attempts.sent,
                duration_s=trio.current_time() - started,
            )
        return journal.SubCallAnswered(
            cell=0,
            ordinal=0,
            prompt=prompt,
            model=reply.done.model,
            peer=reply.placed.peer,
            text=reply.text,
            usage=reply.done.usage,
            attempts=attempts.sent,
            duration_s=trio.current_time() - started,
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
