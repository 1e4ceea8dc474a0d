"""What a cell asks of the outside, answered: models, child sessions, folds, history, the budget.

Weather is an answer, too: an error that a program can tell from a text. Each answer is journalled
before the cell hears it. What was asked in this task before, word for word, is answered from then.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import NamedTuple

import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.mesh import Mesh
from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.core.question_groups import Question
from kowalski.node.services.fold_search import FOUND_MAX, Embed, FoldSearch
from kowalski.node.services.purse import BudgetSpentError, Purse
from kowalski.node.services.session_term import Term
from kowalski.protocol.errors import PeerUnreachableError, RequestRefusedError
from kowalski.protocol.ids import ContentHash
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.base import line
from kowalski.protocol.messages.inference import ChatMessage
from kowalski.protocol.messages.kept_calls import CallName
from kowalski.protocol.messages.repl import SubCall, SubCallResult
from kowalski.rlm.sub_calls import Place, SubCallBook, question_of

HISTORY_BYTES_MAX = 256 * 1024
"""Of what `history` holds in a cell; older messages are there by their handles."""

ANSWERS_MAX = 256
"""Of one entry. Those with texts are fewer: what came in one message."""

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

Hear = Callable[[Answered], None]
"""Takes answers of a moment: they are in the journal when it returns."""

AskMany = Callable[[str | None, Sequence[Question], Hear], Awaitable[None]]
"""Ask a model many questions at once, each answered for itself; returns when all were heard."""

AskChild = Callable[[Place, SubCall, CallName], Awaitable[Reply]]
"""Have a child session answer. Never raises for weather."""


class _Slot(NamedTuple):
    """One sub-call of a batch, and where its answer is written."""

    number: int
    call: SubCall
    place: Place
    name: CallName


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

    def of_cell(
        self, cell: int
    ) -> Callable[[tuple[SubCall, ...]], Awaitable[tuple[SubCallResult, ...]]]:
        """For one run of a cell: answers a batch all at once, each slot for itself, in order."""
        run = self.book.run_of(cell)

        def answer(calls: tuple[SubCall, ...]) -> Awaitable[tuple[SubCallResult, ...]]:
            # Numbered as they come, whatever order they are answered in.
            named = [(run.name(call), call, run.replayed(call)) for call in calls]
            return self._answer_all(
                [
                    replayed or _Slot(number, call, run.place(call), name)
                    for number, (name, call, replayed) in enumerate(named)
                ]
            )

        return answer

    async def _answer_all(
        self, slots: Sequence[SubCallResult | _Slot]
    ) -> tuple[SubCallResult, ...]:
        results = [SubCallResult() if isinstance(one, _Slot) else one for one in slots]
        wanted = [one for one in slots if isinstance(one, _Slot)]

        async def answer(slot: _Slot) -> None:
            results[slot.number] = await self._answer(slot)

        async with open_plain_nursery() as nursery:
            known, fresh, others = self._sorted(wanted)
            self._record_all([(slot, REPEATED) for slot in known], results)
            for slot in others:
                nursery.start_soon(answer, slot)
            if fresh:
                await self._ask_together(fresh, results)
        return tuple(results)

    async def _answer(self, slot: _Slot) -> SubCallResult:
        call, place = slot.call, slot.place
        match call.kind:
            case "unfold":
                return await self._unfold(call)  # there again whenever it is asked
            case "find":
                return await self._find(place, call)
            case "history":
                return self._record(place, call, Reply(text=self._history()))
            case "budget":
                return self._record(place, call, Reply(text=self._left()))
            case "llm" | "rlm":
                return await self._answer_once(slot)
            case _:
                return SubCallResult(error=f"nobody answers {call.kind}", code="unsupported")

    def _record(self, place: Place, call: SubCall, reply: Reply) -> SubCallResult:
        """Journal it; only then the cell may know."""
        answered = _entry(place, call, reply)
        self._term.record(answered)
        return self.book.result(answered)

    def _record_all(
        self, replies: Sequence[tuple[_Slot, Reply]], results: list[SubCallResult]
    ) -> None:
        """Journal answers of a moment in one entry; only then the cell may know."""
        for start in range(0, len(replies), ANSWERS_MAX):
            some = replies[start : start + ANSWERS_MAX]
            entries = tuple(_entry(slot.place, slot.call, reply) for slot, reply in some)
            self._term.record(
                entries[0] if len(entries) == 1 else journal.SubCallsAnswered(answers=entries)
            )
            for (slot, _), answered in zip(some, entries, strict=True):
                results[slot.number] = self.book.result(answered)

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
            elif self.book.repeated(slot.call) is not None:
                known.append(slot)
            elif (question := question_of(slot.call)) in self._under_way:
                others.append(slot)
            else:
                self._under_way[question] = _UnderWay(slot)
                fresh.append(slot)
        return known, fresh, others

    async def _ask_together(self, slots: list[_Slot], results: list[SubCallResult]) -> None:
        of_models: dict[str | None, dict[Question, _Slot]] = {}
        for slot in slots:
            model = slot.call.model or self._term.spec.asking.sub_model
            question = Question(slot.call.prompt, slot.name)
            of_models.setdefault(model, {})[question] = slot

        async def ask(model: str | None, asked: dict[Question, _Slot]) -> None:
            def hear(answered: Answered) -> None:
                replies = [(asked[question], reply) for question, reply in answered]
                self._record_all(replies, results)
                for slot, _ in replies:
                    self._end_asking(slot)

            await self._ask_many(model, tuple(asked), hear)

        try:
            async with open_plain_nursery() as nursery:
                for model, asked in of_models.items():
                    nursery.start_soon(ask, model, asked)
        finally:
            for slot in slots:
                self._end_asking(slot)

    def _end_asking(self, slot: _Slot) -> None:
        """Whoever asks the same waits no longer."""
        under_way = self._under_way.get(question_of(slot.call))
        if under_way is not None and under_way.slot is slot:
            del self._under_way[question_of(slot.call)]
            under_way.answered.set()

    async def _answer_once(self, slot: _Slot) -> SubCallResult:
        if not self._term.spec.asking.answers_once:
            return await self._ask(slot)
        call = slot.call
        repeated = self.book.repeated(call)
        question = question_of(call)
        if repeated is None and (under_way := self._under_way.get(question)):
            await under_way.answered.wait()
            repeated = self.book.repeated(call)
        if repeated is not None:
            return self._record(slot.place, call, REPEATED)
        under_way = self._under_way.setdefault(question, _UnderWay())
        try:
            return await self._ask(slot)
        finally:
            if self._under_way.get(question) is under_way:
                del self._under_way[question]
            under_way.answered.set()

    async def _ask(self, slot: _Slot) -> SubCallResult:
        _, call, place, name = slot
        if call.kind == "rlm" and self._ask_child is not None:
            return self._record(place, call, await self._ask_child(place, call, name))
        model = call.model or self._term.spec.asking.sub_model
        message = ChatMessage(role="user", content=call.prompt)
        try:
            with self._purse.call():
                return self._record(place, call, await self._ask_model(model, (message,), name))
        except BudgetSpentError as spent:
            return self._record(place, call, Reply(error=str(spent), code="budget_spent"))

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

    async def _find(self, place: Place, call: SubCall) -> SubCallResult:
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
                call.prompt, refs, count=FOUND_MAX, model=model, embed=self._embed
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
            return self._record(place, call, reply)

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


def _entry(place: Place, call: SubCall, reply: Reply) -> journal.SubCallAnswered:
    return journal.SubCallAnswered.model_validate(
        {
            "cell": place.cell,
            "ordinal": place.ordinal,
            "prompt": question_of(call),
            "kind": call.kind,
            "text": reply.text,
            "error": None if reply.error is None else line(reply.error),
            "code": reply.code,
            **reply.facts,
        }
    )
