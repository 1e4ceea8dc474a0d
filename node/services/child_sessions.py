"""Child sessions: what `rlm_query` in a cell begins, led beside the session that asks.

A child has the prompt as its data, turns of its own, and REPL sessions of its own, on whatever
peers are best placed. Budget and journal are its parent's: what happens in it is an entry there
(`ChildHappened`), so that whoever continues the task continues its children.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import trio

from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.services.placed_work import ANY_MODEL
from kowalski.node.services.purse import BudgetSpentError, Purse
from kowalski.node.services.session_term import Term
from kowalski.node.services.sub_calls import Reply
from kowalski.protocol import codec
from kowalski.protocol.ids import TaskId
from kowalski.protocol.limits import PROMPT_BYTES_MAX, TEXT_BYTES_MAX
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.base import fitting
from kowalski.protocol.messages.inference import Usage
from kowalski.protocol.messages.repl import SubCall
from kowalski.protocol.messages.task import Asking, Budget, TaskSpec
from kowalski.rlm import budget
from kowalski.rlm import session as machine
from kowalski.rlm.sub_calls import Place, question_of

CLOSING_S = 2.0


class Hands(Protocol):
    """What a session wants done, done; see `session_hands`."""

    def hear(self, event: journal.SessionEvent) -> None: ...
    async def ask_model(
        self, effect: machine.AskModel
    ) -> journal.ModelReplied | journal.ModelFailed: ...
    async def run_cell(
        self, effect: machine.RunCell
    ) -> journal.CellFinished | journal.CellFailed: ...
    async def fold(self, effect: machine.Fold) -> journal.Folded | journal.BudgetSpent: ...
    async def close_sessions(self, *, timeout_s: float) -> None: ...


HandsOf = Callable[[Term, int], Hands]
"""Hands for a session of this term, with so many levels of children below it."""


def child_task(parent: TaskId, place: Place) -> TaskId:
    """The name under which workers know a child's cells: always the same for one place."""
    name = f"{parent}\0{place.cell}\0{place.ordinal}".encode()
    return TaskId(f"child-{hashlib.sha256(name).hexdigest()[:32]}")


def child_spec(parent: TaskSpec, call: SubCall) -> TaskSpec:
    """What a child is asked. Its calls are counted by its parent's budget, not by one of its own.

    Depends on nothing but its arguments: whoever continues the task makes the same.
    """
    return TaskSpec(
        prompt=call.prompt,
        mode="rlm",
        model=call.model or parent.model,
        max_iterations=parent.max_iterations,
        cell_timeout_s=parent.cell_timeout_s,
        timeout_s=parent.timeout_s,
        seed=parent.seed,
        priority=parent.priority,
        failover=parent.failover,
        retry=parent.retry,
        side_effects=parent.side_effects,
        devices=parent.devices,
        budget=Budget(depth=max(0, parent.budget.depth - 1)),
        asking=parent.asking.model_copy(update={"drafts": Asking().drafts}),
        window_tokens=parent.window_tokens,
        output_chars=parent.output_chars,
    )


def why_not(call: SubCall) -> Reply | None:
    """Why no session can be made of this; None if one can."""
    size = len(call.prompt.encode())
    if not call.prompt:
        return Reply(error="an empty prompt", code="bad_request")
    if size > PROMPT_BYTES_MAX:
        words = f"a prompt of {size} bytes; at most {PROMPT_BYTES_MAX} for rlm_query"
        return Reply(error=words, code="too_long")
    return None


class ChildSession:
    def __init__(
        self, parent: Term, place: Place, call: SubCall, *, purse: Purse, hands_of: HandsOf
    ) -> None:
        self._parent = parent
        self._place = place
        self._question: str | None = question_of(call)
        self._purse = purse
        spec = child_spec(parent.spec, call)
        model = call.model or parent.spec.asking.sub_model or parent.session().model or ANY_MODEL
        self._opened = journal.Opened(mode="rlm", model=model, seed=spec.seed, why="rlm_query")
        above = parent.session()
        limits = above.limits if model == above.model else parent.limits_of(model)
        fresh = machine.new_session(spec, limits=limits, prompts=above.prompts)
        self._session = fresh
        self._spent = budget.NOTHING
        self._finish: machine.Finish | None = None
        self._is_finished = trio.Event()
        self._nursery: trio.Nursery
        term = replace(
            parent,
            task=child_task(parent.task, place),
            spec=spec,
            session=lambda: self._session,
            record=self._record,
            progress=self._progress,
        )
        self._hands = hands_of(term, spec.budget.depth)

    async def run(self, past: Sequence[journal.SessionEvent]) -> Reply:
        """Lead it to its end, from where `past` left it."""
        for event in past:
            self._question = None
            self._hands.hear(event)
            self._spent = budget.added(self._spent, event)
        self._session = machine.replay(self._session, past)
        try:
            async with open_plain_nursery() as self._nursery:
                if past:
                    self._perform(machine.outstanding(self._session))
                else:
                    self._happened(self._opened)
                await self._is_finished.wait()
                self._nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(CLOSING_S):
                await self._hands.close_sessions(timeout_s=CLOSING_S)
        return self._reply()

    def _reply(self) -> Reply:
        finish = self._finish
        assert finish is not None
        used = Usage(
            prompt_tokens=self._spent.prompt_tokens,
            completion_tokens=self._spent.completion_tokens,
        )
        facts: dict[str, object] = {"model": self._session.model, "usage": used}
        if finish.outcome == "answered":
            return Reply(text=fitting(finish.answer, TEXT_BYTES_MAX), facts=facts)
        code, _, words = finish.detail.partition(": ")
        is_code = code.isascii() and code.replace("_", "").isalnum() and code.islower()
        return Reply(error=words or code, code=code[:40] if is_code else "failed", facts=facts)

    def _happened(self, event: journal.SessionEvent) -> None:
        if self._finish is not None:
            return
        self._write(event)
        self._session, effects = machine.step(self._session, event)
        self._perform(effects)

    def _record(self, event: journal.SessionEvent) -> None:
        self._write(event)
        self._session = machine.replay(self._session, (event,))

    def _write(self, event: journal.SessionEvent) -> None:
        self._hands.hear(event)
        self._spent = budget.added(self._spent, event)
        entry = {"cell": self._place.cell, "ordinal": self._place.ordinal}
        what = {"question": self._question, "event": codec.encode(event)}
        self._question = None
        self._parent.record(journal.ChildHappened.model_validate({**entry, **what}))

    def _perform(self, effects: Sequence[machine.Effect]) -> None:
        for effect in effects:
            match effect:
                case machine.AskModel():
                    self._nursery.start_soon(self._ask_model, effect)
                case machine.RunCell():
                    self._nursery.start_soon(self._run_cell, effect)
                case machine.Fold():
                    self._nursery.start_soon(self._fold, effect)
                case machine.Note():
                    pass
                case machine.Finish():
                    self._finish = self._finish or effect
                    self._is_finished.set()

    async def _ask_model(self, effect: machine.AskModel) -> None:
        try:
            with self._purse.call():
                self._happened(await self._hands.ask_model(effect))
        except BudgetSpentError as spent:
            over = spent.over
            self._happened(journal.BudgetSpent(limit=over.limit, detail=over.detail))

    async def _run_cell(self, effect: machine.RunCell) -> None:
        self._happened(await self._hands.run_cell(effect))

    async def _fold(self, effect: machine.Fold) -> None:
        self._happened(await self._hands.fold(effect))

    def _progress(self, kind: str, **more: object) -> None:
        """Of a child only what goes wrong is shown; the rest is in the journal."""
        if kind in ("moved", "replayed", "restart"):
            self._parent.progress(kind, **more)
