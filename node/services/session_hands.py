"""What a session wants done, done: its model calls, its cells, its folds.

Each effect of `kowalski.rlm.session` ends in the event that answers it. Weather is an answer, too:
nothing here raises because a peer failed. What cells ask is `sub_calls`' to answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.core.blame import Weather
from kowalski.mesh.core.placement import Need
from kowalski.mesh.mesh import Mesh
from kowalski.node.core.lately_here import gone_s
from kowalski.node.core.missed import No, Patience, Presence
from kowalski.node.core.question_groups import Question
from kowalski.node.core.tries import PeersLostError
from kowalski.node.services import child_sessions, session_folds, session_inputs
from kowalski.node.services.child_sessions import ChildSession
from kowalski.node.services.grouped_questions import Asking, GroupedQuestions
from kowalski.node.services.held_calls import HeldCalls
from kowalski.node.services.placed_groups import PlacedGroups
from kowalski.node.services.placed_work import (
    ANY_MODEL,
    Attempts,
    Completion,
    Embeddings,
    PlacedWork,
)
from kowalski.node.services.purse import Purse
from kowalski.node.services.session_term import Term, code_of
from kowalski.node.services.sub_calls import Hear, Reply, SubCalls
from kowalski.node.services.task_cells import CellLimits, Outlook, TaskCells
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.base import line
from kowalski.protocol.messages.calls import CallName
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.folding import FoldAsked
from kowalski.protocol.messages.inference import (
    ChatMessage,
    CompletionAsked,
    EmbeddingsAsked,
    Sampling,
)
from kowalski.protocol.messages.repl import SubCall
from kowalski.rlm import call_names, folding
from kowalski.rlm import session as machine
from kowalski.rlm.sub_calls import Place

SUB_CALLS_AT_A_TIME = 64
"""Of one task; further ones wait here, and hold no line elsewhere up."""

CHILDREN_AT_A_TIME = 8
"""Of one depth: children that wait for children of their own must not be in the way of those."""

EMBED_S = 30.0
SEEDS = 2**31
"""Servers take seeds of 32 bits."""


def _unheard(_told: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Rooms:
    """What all sessions of a task work with."""

    mesh: Mesh
    work: PlacedWork
    store: ContentStore
    purse: Purse
    sub_calls: trio.CapacityLimiter
    children: tuple[trio.CapacityLimiter, ...]
    """One for each depth; the last is for those right below the task."""


class SessionHands:
    """`depth` is how many levels of child sessions there may be below this one."""

    def __init__(self, term: Term, rooms: Rooms, depth: int) -> None:
        self._term = term
        self._rooms = rooms
        self._depth = depth
        self._sub_calls = SubCalls(
            term,
            rooms.purse,
            mesh=rooms.mesh,
            store=rooms.store,
            ask_model=self._answer_sub_call,
            ask_many=self._answer_sub_calls,
            ask_child=self._ask_child if depth > 0 else None,
            embed=self._embed,
            depth=depth,
        )
        self._presence = Presence()
        self._held = HeldCalls(
            rooms.mesh,
            term.task,
            term.claim.submitter,
            term=term.term,
            until_lease_held=term.lease.until_may_dispatch,
        )
        self._grouped = GroupedQuestions(
            PlacedGroups(rooms.mesh, rooms.work), rooms.purse, rooms.sub_calls
        )
        outlook = Outlook(
            term.record,
            term.progress,
            self._sub_calls.of_cell,
            term.lease.require,
            self._held.interrupted,
        )
        self._cells = TaskCells(
            term.task,
            term.term,
            mesh=rooms.mesh,
            work=rooms.work,
            outlook=outlook,
            limits=CellLimits(term.spec, term.remaining_s, term.claim),
        )

    def hear(self, event: journal.SessionEvent) -> None:
        """Learn from the journal, before and while the task runs."""
        self._cells.hear(event)
        self._sub_calls.book.hear(event)

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

    # --- model calls ----------------------------------------------------------------------------

    async def ask_model(
        self, effect: machine.AskModel
    ) -> journal.ModelReplied | journal.ModelFailed:
        term = self._term
        term.progress("asking", text=effect.purpose)
        started = trio.current_time()
        name = call_names.of_turn(effect.call)
        asked = self._asked(effect.model, effect.messages, name, effect.call, effect.json_schema)
        attempts, patience = Attempts(), Patience(started)
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
                if not await self._wait_for_somebody(error, asked.model, patience):
                    return journal.ModelFailed(
                        call=effect.call,
                        code=code_of(error, "model_failed"),
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
        name: CallName | None,
        number: int = 0,
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
            call=name,
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
        holder: PeerId | None = None,
    ) -> Completion:
        """Raises `Weather`. What no server can do, and the answer does not need, is left out.

        `holder` has it already, if anybody.
        """
        if holder is None and asked.call is not None:
            holder = await self._held.take(asked.call)
            left_s = self._term.remaining_s()  # to look for who has it takes of the time
            asked = asked.model_copy(update={"remaining_s": left_s})
        ask = partial(
            self._rooms.work.complete,
            holder=holder,
            devices=self._term.spec.devices,
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
            if code_of(error, "") != "unsupported" or less == asked:
                raise
            return await ask(less)

    async def _as_of_now(self, asked: CompletionAsked) -> CompletionAsked:
        """The request as it may be sent: in the term that is then. Raises `NotYetError`."""
        term = self._term
        term.lease.require()
        self._was_there(asked.model)
        return asked.model_copy(update={"term": term.term(), "remaining_s": term.remaining_s()})

    async def _wait_for_somebody(self, error: Exception, model: str, patience: Patience) -> bool:
        """Wait before asking again: for who is silent, or was lost, or because the task queues."""
        spec, mesh = self._term.spec, self._rooms.mesh
        need = Need("inference", model=None if model == ANY_MODEL else model, devices=spec.devices)
        wait = self._presence.wait_after(
            No(code_of(error, "failed"), are_lost=isinstance(error, PeersLostError)),
            model,
            patience,
            need=need,
            candidates=mesh.candidates(),
            failover=spec.failover,
            now=trio.current_time(),
            here_since=mesh.detection.here_since,
            gone_s=gone_s(mesh.facts(), need),
        )
        if wait is None:
            return False
        if wait.is_told:
            self._term.progress("note", text=f"waiting: {error}")
        await trio.sleep(wait.seconds)
        return True

    def _was_there(self, model: str) -> None:
        self._presence.saw(model, trio.current_time())

    # --- cells ----------------------------------------------------------------------------------

    async def run_cell(self, effect: machine.RunCell) -> journal.CellFinished | journal.CellFailed:
        """Raises RequestRefusedError: `no_capacity`, the prompt cannot be kept as an input."""
        term = self._term
        inputs = await session_inputs.cell_inputs(
            term.spec, term.session().prompt_input, self._rooms.store
        )
        self._cells.inputs = tuple(
            one.model_copy(update={"content": term.holders(one.content)}) for one in inputs
        )
        return await self._cells.run(effect)

    async def _answer_sub_call(
        self, model: str | None, messages: tuple[ChatMessage, ...], name: CallName
    ) -> Reply:
        """One question of a cell to a model. Weather is a reply."""
        async with self._rooms.sub_calls:
            return await self._answer_alone(model, messages, name)

    async def _answer_sub_calls(
        self, model: str | None, questions: Sequence[Question], hear: Hear
    ) -> None:
        """Many at once, in groups where that is quicker."""

        def alone(one: Question) -> Awaitable[Reply]:
            message = ChatMessage(role="user", content=one.prompt)
            return self._answer_alone(model, (message,), one.name, one.holder)

        for one in questions:
            one.holder = await self._held.take(one.name)
            one.is_alone = one.holder is not None

        asking = Asking(
            model=model,
            asked=lambda: self._asked(model or self._model_now(), (), None),
            alone=alone,
            lost=lambda: self._was_there(model or self._model_now()),
            as_of_now=self._as_of_now,
            devices=self._term.spec.devices,
        )
        await self._grouped.ask(questions, asking, hear)

    def _model_now(self) -> str:
        return self._term.session().model or ANY_MODEL

    async def _answer_alone(
        self,
        model: str | None,
        messages: tuple[ChatMessage, ...],
        name: CallName,
        holder: PeerId | None = None,
    ) -> Reply:
        attempts, started = Attempts(), trio.current_time()
        patience = Patience(started)
        asked = self._asked(model or self._model_now(), messages, name)
        facts: dict[str, object] = {"model": model}
        while True:
            try:
                reply = await self._complete(asked, attempts, holder=holder)
            except Weather as error:
                holder = None
                if not await self._wait_for_somebody(error, asked.model, patience):
                    facts["attempts"] = attempts.sent
                    facts["duration_s"] = trio.current_time() - started
                    return Reply(error=str(error), code=code_of(error, "failed"), facts=facts)
                asked = asked.model_copy(update={"remaining_s": self._term.remaining_s()})
            else:
                break
        facts = {
            "model": reply.done.model,
            "peer": reply.placed.peer,
            "usage": reply.done.usage,
            "attempts": attempts.sent,
            "duration_s": trio.current_time() - started,
        }
        return Reply(text=reply.text, facts=facts)

    async def _ask_child(self, place: Place, call: SubCall, name: CallName) -> Reply:
        """A child session's answer; where no peer runs python a model's, who needs none."""
        no = child_sessions.why_not(call)
        if no is not None:
            return no
        if "python" not in session_inputs.languages(self._rooms.mesh, self._term.spec.devices):
            message = ChatMessage(role="user", content=call.prompt)
            return await self._answer_sub_call(call.model, (message,), name)
        async with self._rooms.children[self._depth - 1]:
            child = ChildSession(
                self._term,
                place,
                call,
                purse=self._rooms.purse,
                hands_of=lambda term, depth: SessionHands(term, self._rooms, depth),
            )
            return await child.run(self._sub_calls.book.child(place))

    # --- folds ----------------------------------------------------------------------------------

    async def fold(self, effect: machine.Fold) -> journal.Folded | journal.BudgetSpent:
        """On the nearest peer; here, if nobody else can. What it was stays readable by its hash."""
        term = self._term
        try:
            original = await self._rooms.store.put(effect.text.encode())
        except Weather as full:
            return journal.BudgetSpent(limit="window", detail=line(f"folding: {full}"))
        if term.spec.asking.fold_model is not None:
            return await self._fold_by_model(term.spec.asking.fold_model, effect, original)
        asked = FoldAsked(
            content=original,
            budget_tokens=effect.budget_tokens,
            question=line(term.spec.prompt),
            remaining_s=term.remaining_s(),
            claim=term.claim,
        )
        try:
            folded = await self._rooms.work.fold(
                asked,
                as_of_now=self._fold_as_of_now,
                devices=term.spec.devices,
                task=term.task,
            )
        except Weather as error:
            term.progress("note", text=f"nobody folds ({error}); it is done here")
            return await self._fold_here(effect, original)
        return journal.Folded(
            text=folded.text,
            original=original,
            source_tokens=folded.done.source_tokens,
            tokens=folded.done.tokens,
            peer=folded.placed.peer,
        )

    async def _fold_by_model(
        self, model: str, effect: machine.Fold, original: ContentRef
    ) -> journal.Folded:
        async def ask(
            messages: tuple[ChatMessage, ...], reply_tokens: int, attempts: Attempts
        ) -> Completion:
            asked = self._asked(model, messages, call_names.FOLD)
            return await self._complete(
                asked.model_copy(update={"max_tokens": reply_tokens}), attempts
            )

        return await session_folds.fold_window(
            effect,
            original,
            ask=ask,
            purse=self._rooms.purse,
            question=line(self._term.spec.prompt),
            here=self._rooms.mesh.me,
        )

    async def _fold_here(self, effect: machine.Fold, original: ContentRef) -> journal.Folded:
        fold = partial(
            folding.fold,
            effect.text,
            budget_tokens=effect.budget_tokens,
            question=self._term.spec.prompt,
        )
        folded = await trio.to_thread.run_sync(fold)
        return journal.Folded(
            text=folded.text,
            original=original,
            source_tokens=folded.source_tokens,
            tokens=folded.tokens,
            peer=self._rooms.mesh.me,
        )

    async def _embed(self, model: str, texts: tuple[str, ...]) -> Embeddings:
        """For a search among folds, which is by words alone where this takes too long."""
        term = self._term
        await term.lease.until_may_dispatch()
        asked = EmbeddingsAsked(
            task=term.task,
            term=term.term(),
            model=model,
            texts=texts,
            remaining_s=min(EMBED_S, term.remaining_s()),
            claim=term.claim,
        )
        return await self._rooms.work.embed(asked, devices=term.spec.devices)

    async def _fold_as_of_now(self, asked: FoldAsked) -> FoldAsked:
        self._term.lease.require()
        return asked.model_copy(update={"remaining_s": self._term.remaining_s()})


def hands_of_task(term: Term, *, mesh: Mesh, work: PlacedWork, store: ContentStore) -> SessionHands:
    """Hands for a whole task, with what its children share."""
    rooms = Rooms(
        mesh=mesh,
        work=work,
        store=store,
        purse=Purse(term.spec, lambda: term.session().spent),
        sub_calls=trio.CapacityLimiter(SUB_CALLS_AT_A_TIME),
        children=tuple(
            trio.CapacityLimiter(CHILDREN_AT_A_TIME) for _ in range(term.spec.budget.depth)
        ),
    )
    return SessionHands(term, rooms, term.spec.budget.depth)
