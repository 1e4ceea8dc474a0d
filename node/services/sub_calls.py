"""What a cell asks of the outside, answered: models, child sessions, folds, history, the budget.

Weather is an answer, too: an error that a program can tell from a text. Each answer is journalled
before the cell hears it. What was asked in this task before, word for word, is answered from then.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.mesh import Mesh
from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.core.question_groups import Question
from kowalski.node.services.fold_search import FOUND_MAX, Embed, FoldSearch
from kowalski.node.services.gathered_answers import GatheredAnswers
from kowalski.node.services.purse import BudgetSpentError, Purse
from kowalski.node.services.session_term import Term
from kowalski.protocol.errors import PeerUnreachableError, RequestRefusedError
from kowalski.protocol.ids import ContentHash
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.base import line
from kowalski.protocol.messages.calls import CallName
from kowalski.protocol.messages.inference import ChatMessage
from kowalski.protocol.messages.repl import SubCall, SubCallResult
from kowalski.rlm.sub_calls import Place, SubCallBook, question_of

HISTORY_BYTES_MAX = 256 * 1024
"""Of what `history` holds in a cell; older messages are there by their handles."""

UNFOLD_CHARS = 64 * 1024
"""Of an original that is handed over at once; four bytes each at most."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a question, before it is an entry."""

    text: str | None = None
    error: str | None = None
    code: str | None = None
    facts: dict[str, object] = field(default_factory=dict)
    """More fields of the entry: who answered, what it used."""


AskModel = Callable[[str | None, tuple[ChatMessage, ...], CallName], Awaitable[Reply]]
"""Ask a model, by name or the session's choice. Never raises for weather."""

REPEATED = Reply(facts={"is_repeated": True})

Answered = Sequence[tuple[Question, Reply]]


class Hear(Protocol):
    """Takes answers, each of its questions once; the last ones are in the journal when it returns.

    Of others `written` tells when they are, which is in a moment unless they are `slow`: then now.
    """

    def __call__(
        self, answered: Answered, written: Callable[[Question], None], *, slow: bool = False
    ) -> None: ...


AskMany = Callable[[str | None, Sequence[Question], Hear], Awaitable[None]]
"""Ask a model many questions at once, each answered for itself; returns when all were heard."""

AskChild = Callable[[Place, SubCall, CallName], Awaitable[Reply]]
"""Have a child session answer. Never raises for weather."""


class _Slot(NamedTuple):
    """One sub-call of a batch, where its answer is written, and where the cell finds it."""

    number: int
    call: SubCall
    question: ContentHash
    place: Place
    name: CallName
    results: list[SubCallResult]


@dataclass(slots=True)
class _UnderWay:
    """A question that waits for its answer; who asks the same waits with it."""

    slot: _Slot | None = None
    answered: trio.Event = field(default_factory=trio.Event)


class SubCalls:
    """Answers the cells of one session. `ask_child` None: there are no children below it."""

    def __init__(
        self,
        term: Term,
        purse: Purse,
        *,
        mesh: Mesh,
        store: ContentStore,
        ask_model: AskModel,
        ask_many: AskMany,
        ask_child: AskChild | None,
        embed: Embed,
        depth: int,
    ) -> None:
        self._term = term
        self._purse = purse
        self._mesh = mesh
        self._store = store
        self._ask_model = ask_model
        self._ask_many = ask_many
        self._ask_child = ask_child
        self._embed = embed
        self._search = FoldSearch(mesh, store)
        self._depth = depth
        self.book = SubCallBook()
        self._under_way: dict[ContentHash, _UnderWay] = {}
        self._gathered = GatheredAnswers(term.record)

    def of_cell(
        self, cell: int
    ) -> Callable[[tuple[SubCall, ...]], Awaitable[tuple[SubCallResult, ...]]]:
        """For one run of a cell: answers a batch all at once, each slot for itself, in order."""
        run = self.book.run_of(cell)

        def answer(calls: tuple[SubCall, ...]) -> Awaitable[tuple[SubCallResult, ...]]:
            # Numbered as they come, whatever order they are answered in.
            results: list[SubCallResult] = []
            wanted: list[_Slot] = []
            for number, call in enumerate(calls):
                question = question_of(call)
                name, replayed = run.name(question), run.replayed(question)
                results.append(replayed or SubCallResult())
                if replayed is None:
                    place = run.place(question)
                    wanted.append(_Slot(number, call, question, place, name, results))
            return self._answer_all(wanted, results)

        return answer

    async def _answer_all(
        self, wanted: list[_Slot], results: list[SubCallResult]
    ) -> tuple[SubCallResult, ...]:
        async def answer(slot: _Slot) -> None:
            results[slot.number] = await self._answer(slot)

        async with open_plain_nursery() as nursery:
            known, fresh, others = self._sorted(wanted)
            for slot in known:
                self._gathered.add(_entry(slot, REPEATED), partial(self._show, slot))
            self._gathered.write()
            for slot in others:
                nursery.start_soon(answer, slot)
            if fresh:
                await self._ask_together(fresh)
        return tuple(results)

    async def _answer(self, slot: _Slot) -> SubCallResult:
        match slot.call.kind:
            case "unfold":
                return await self._unfold(slot.call)  # there again whenever it is asked
            case "find":
                return await self._find(slot)
            case "history":
                return self._record(slot, Reply(text=self._history()))
            case "budget":
                return self._record(slot, Reply(text=self._left()))
            case "llm" | "rlm":
                return await self._answer_once(slot)
            case _:
                return SubCallResult(error=f"nobody answers {slot.call.kind}", code="unsupported")

    def _record(self, slot: _Slot, reply: Reply) -> SubCallResult:
        """Journal it; only then the cell may know."""
        answered = _entry(slot, reply)
        self._term.record(answered)
        return self.book.result(answered)

    def _show(self, slot: _Slot, answered: journal.SubCallAnswered) -> None:
        """What is in the journal, the cell may know."""
        slot.results[slot.number] = self.book.result(answered)

    # --- questions to models --------------------------------------------------------------------

    def _sorted(self, wanted: list[_Slot]) -> tuple[list[_Slot], list[_Slot], list[_Slot]]:
        """Those answered before, those to be asked of a model together, and all others.

        Of two that ask the same one is asked, and the other waits for it among the others.
        """
        known: list[_Slot] = []
        fresh: list[_Slot] = []
        others: list[_Slot] = []
        for slot in wanted:
            if slot.call.kind != "llm":
                others.append(slot)
            elif not self._term.spec.asking.answers_once:
                fresh.append(slot)
            elif self.book.repeated(slot.question) is not None:
                known.append(slot)
            elif slot.question in self._under_way:
                others.append(slot)
            else:
                self._under_way[slot.question] = _UnderWay(slot)
                fresh.append(slot)
        return known, fresh, others

    async def _ask_together(self, slots: list[_Slot]) -> None:
        of_models: dict[str | None, dict[Question, _Slot]] = {}
        for slot in slots:
            model = slot.call.model or self._term.spec.asking.sub_model
            question = Question(slot.call.prompt, slot.name)
            of_models.setdefault(model, {})[question] = slot

        try:
            async with open_plain_nursery() as nursery:
                nursery.start_soon(self._gathered.keep_writing)
                async with open_plain_nursery() as asking:
                    for model, asked in of_models.items():
                        asking.start_soon(self._ask_model_together, model, asked)
                nursery.cancel_scope.cancel()
        finally:
            self._gathered.write()
            for slot in slots:
                self._end_asking(slot)

    async def _ask_model_together(self, model: str | None, asked: dict[Question, _Slot]) -> None:
        unheard = len(asked)

        def hear(
            answered: Answered, written: Callable[[Question], None], *, slow: bool = False
        ) -> None:
            nonlocal unheard
            for question, reply in answered:
                slot = asked[question]

                def shown(
                    one: journal.SubCallAnswered, slot: _Slot = slot, question: Question = question
                ) -> None:
                    self._show(slot, one)
                    self._end_asking(slot)
                    written(question)

                self._gathered.add(_entry(slot, reply), shown)
            unheard -= len(answered)
            if slow or not unheard:
                self._gathered.write()

        await self._ask_many(model, tuple(asked), hear)

    def _end_asking(self, slot: _Slot) -> None:
        """Whoever asks the same waits no longer."""
        under_way = self._under_way.get(slot.question)
        if under_way is not None and under_way.slot is slot:
            del self._under_way[slot.question]
            under_way.answered.set()

    async def _answer_once(self, slot: _Slot) -> SubCallResult:
        if not self._term.spec.asking.answers_once:
            return await self._ask(slot)
        question = slot.question
        repeated = self.book.repeated(question)
        if repeated is None and (under_way := self._under_way.get(question)):
            await under_way.answered.wait()
            repeated = self.book.repeated(question)
        if repeated is not None:
            return self._record(slot, REPEATED)
        under_way = self._under_way.setdefault(question, _UnderWay())
        try:
            return await self._ask(slot)
        finally:
            if self._under_way.get(question) is under_way:
                del self._under_way[question]
            under_way.answered.set()

    async def _ask(self, slot: _Slot) -> SubCallResult:
        call = slot.call
        if call.kind == "rlm" and self._ask_child is not None:
            return self._record(slot, await self._ask_child(slot.place, call, slot.name))
        model = call.model or self._term.spec.asking.sub_model
        message = ChatMessage(role="user", content=call.prompt)
        try:
            with self._purse.call():
                return self._record(slot, await self._ask_model(model, (message,), slot.name))
        except BudgetSpentError as spent:
            return self._record(slot, Reply(error=str(spent), code="budget_spent"))

    # --- what the session itself knows ----------------------------------------------------------

    def _history(self) -> str:
        """All messages; of those beyond a bound, only that they were there."""
        room = HISTORY_BYTES_MAX
        told: list[str] = []
        for message in reversed(self._term.session().history):
            room -= len(message.content.encode()) + 8
            left_out = f"(left out: {len(message.content)} characters)"
            told.append(message.content if room > 0 else left_out)
        return json.dumps(told[::-1])

    def _left(self) -> str:
        session = self._term.session()
        return json.dumps(
            {
                **self._purse.left(),
                "seconds": round(self._term.remaining_s(), 1),
                "turns": session.spec.max_iterations - session.turns,
                "depth": self._depth if self._ask_child is not None else 0,
            }
        )

    async def _find(self, slot: _Slot) -> SubCallResult:
        """The folds nearest to a question, with what of them is; a call of the budget, if that."""
        refs = [self._term.holders(fold) for fold in reversed(self._term.session().folds)]
        with ExitStack() as held:
            model = self._search.model(self._term.spec.devices) if refs else None
            try:
                if model is not None:
                    held.enter_context(self._purse.call())
            except BudgetSpentError:
                model = None
            found = await self._search.find(
                slot.call.prompt, refs, count=FOUND_MAX, model=model, embed=self._embed
            )
            told = [
                {"handle": one.handle, "score": round(one.score, 3), "text": one.passage}
                for one in found.folds
            ]
            facts: dict[str, object] = {}
            if found.calls:
                facts = {"model": model, "peer": found.peer, "usage": found.usage}
                facts["attempts"] = found.calls
            reply = Reply(text=json.dumps(told, ensure_ascii=False), facts=facts)
            if found.lost and not told:
                words = f"{len(found.lost)} originals cannot be had"
                reply = Reply(error=words, code="lost", facts=facts)
            return self._record(slot, reply)

    async def _unfold(self, call: SubCall) -> SubCallResult:
        """`HANDLE`, or `HANDLE:FROM` for a piece of the original; empty behind its end."""
        handle, _, start = call.prompt.partition(":")
        folds = self._term.session().folds
        ref = next((fold for fold in folds if fold.hash == handle), None)
        if ref is None or not (start or "0").isdecimal():
            return SubCallResult(error=f"no fold has the handle {call.prompt[:80]}", code="unknown")
        try:
            await self._store.fetch(self._term.holders(ref), self._mesh)
        except (PeerUnreachableError, RequestRefusedError) as lost:
            return SubCallResult(error=line(str(lost)), code="lost")
        text = (await self._store.read(ref)).decode(errors="replace")
        begin = int(start or "0")
        return SubCallResult(text=text[begin : begin + UNFOLD_CHARS])


def _entry(slot: _Slot, reply: Reply) -> journal.SubCallAnswered:
    return journal.SubCallAnswered.model_validate(
        {
            "cell": slot.place.cell,
            "ordinal": slot.place.ordinal,
            "prompt": slot.question,
            "kind": slot.call.kind,
            "text": reply.text,
            "error": None if reply.error is None else line(reply.error),
            "code": reply.code,
            **reply.facts,
        }
    )
