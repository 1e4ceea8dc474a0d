"""The questions that a cell asks of models at once, each answered for itself.

Quick ones are asked in groups (`core.question_groups`), the others alone; which they are shows
while they are asked. What does not come out well in a group is asked again alone, elsewhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

import trio

from kowalski.mesh.core.blame import Weather
from kowalski.mesh.core.placement import Devices
from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.core.question_groups import PROMPTS_BYTES_MAX, QUICK_S, Group, Question
from kowalski.node.services.placed_groups import PlacedGroups, Told
from kowalski.node.services.purse import BudgetSpentError, Purse
from kowalski.node.services.session_term import code_of
from kowalski.node.services.sub_calls import Hear, Reply
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.inference import CompletionAsked

AskAlone = Callable[[Question], Awaitable[Reply]]
"""Ask one question. Never raises for weather."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How all of them are asked: `asked` makes what holds for each, as of now."""

    model: str | None
    """As the cell named it."""
    asked: Callable[[], CompletionAsked]
    alone: AskAlone
    as_of_now: Callable[[CompletionAsked], Awaitable[CompletionAsked]]
    devices: Devices


class GroupedQuestions:
    """`at_a_time` bounds what is under way for one task: questions alone, and groups."""

    def __init__(self, groups: PlacedGroups, purse: Purse, at_a_time: trio.CapacityLimiter) -> None:
        self._groups = groups
        self._purse = purse
        self._at_a_time = at_a_time
        self._under_way: list[_Batch] = []

    async def ask(self, questions: Sequence[Question], how: Asking, hear: Hear) -> None:
        """Returns when `hear` has been told of all of them."""
        batch = _Batch(
            self._groups, self._purse, self._at_a_time, how=how, hear=hear, beside=self._under_way
        )
        self._under_way.append(batch)
        try:
            await batch.run(questions)
        finally:
            self._under_way.remove(batch)
            batch.give_back()


class _Batch:
    """One of those that are under way: what a cell asks at once may come in several messages."""

    def __init__(
        self,
        groups: PlacedGroups,
        purse: Purse,
        at_a_time: trio.CapacityLimiter,
        *,
        how: Asking,
        hear: Hear,
        beside: Sequence[_Batch],
    ) -> None:
        self.waiting: deque[Question] = deque()
        self.in_line: set[Group] = set()
        """Groups that are taken, many of which have no peer yet."""
        self._held: set[Question] = set()
        """Those whose place in the budget is held: until they are answered, and journalled."""
        self._nursery: trio.Nursery
        self._groups = groups
        self._purse = purse
        self._at_a_time = at_a_time
        self.how = how
        self._tell = hear
        self._batches = beside

    async def run(self, questions: Sequence[Question]) -> None:
        self.waiting.extend(questions)
        async with open_plain_nursery() as self._nursery:
            self._begin(len(questions))

    def give_back(self) -> None:
        """The places of those that were given up."""
        while self._held:
            self._held.pop()
            self._purse.give_back()

    async def _work(self) -> None:
        """Ask one after the other, or one group after the other, while any wait."""
        while self.waiting:
            async with self._at_a_time:
                together = self._take()
                if len(together) == 1:
                    await self._ask_alone(together[0])
                elif together:
                    await self._ask_group(Group(together))

    def _written(self, question: Question) -> None:
        if question in self._held:
            self._held.remove(question)
            self._purse.give_back()

    def _take(self) -> list[Question]:
        """The next to be asked together, their places in the budget held."""
        if not self.waiting:
            return []
        taken: list[Question] = []
        weight = 0
        first, how = self.waiting[0], self.how
        size = 1
        if not first.is_alone and len(self.waiting) > 1:
            size = self._groups.size(
                how.asked(), first.prompt, waiting=self._untaken(), devices=how.devices
            )
        while self.waiting and len(taken) < size:
            one = self.waiting[0]
            weight += len(one.prompt.encode())
            if taken and (one.is_alone or weight > PROMPTS_BYTES_MAX):
                break
            self.waiting.popleft()
            if self._is_paid(one):
                taken.append(one)
        return taken

    def _is_paid(self, one: Question) -> bool:
        """Whether its place in the budget is held; if there is none, that is its answer."""
        if one in self._held:
            return True
        try:
            self._purse.take()
        except BudgetSpentError as spent:
            self._tell([(one, Reply(error=str(spent), code="budget_spent"))], self._written)
            return False
        self._held.add(one)
        return True

    async def _ask_alone(self, question: Question) -> None:
        began = trio.current_time()
        reply = await self.how.alone(question)
        if question.attempts:
            attempts = question.attempts + int(str(reply.facts.get("attempts", 0)))
            reply.facts["attempts"] = attempts
        slow = trio.current_time() - began > QUICK_S
        self._tell([(question, reply)], self._written, slow=slow)

    async def _ask_group(self, group: Group) -> None:
        how, began = self.how, trio.current_time()
        asked = how.asked()
        self.in_line.add(group)
        try:
            await self._groups.complete(
                asked,
                group,
                hear=self._hear_group,
                give_back=self._wait_again,
                waiting=self._unasked,
                as_of_now=how.as_of_now,
                devices=how.devices,
            )
        except Weather as error:
            if code_of(error, "failed") == "no_peer":  # alone, each waits for somebody
                for one in group.unanswered:
                    one.is_alone = True
                self._wait_again(group.unanswered)
                return
            duration_s = trio.current_time() - began
            self._tell(
                [
                    (
                        one,
                        Reply(
                            error=str(error),
                            code=code_of(error, "failed"),
                            facts={"attempts": one.attempts, "duration_s": duration_s},
                        ),
                    )
                    for one in group.unanswered
                ],
                self._written,
            )
        finally:
            self.in_line.discard(group)

    def _beside(self) -> Iterator[_Batch]:
        """This one, and others whose questions go to the same model."""
        return (one for one in self._batches if one.how.model == self.how.model)

    def _untaken(self) -> int:
        return sum(len(one.waiting) for one in self._beside())

    def _unasked(self) -> int:
        in_line = (
            len(group.unanswered)
            for one in self._beside()
            for group in one.in_line
            if not group.under_way
        )
        return self._untaken() + sum(in_line)

    def _hear_group(self, peer: PeerId, model: str, told: Told) -> None:
        good: list[tuple[Question, Reply]] = []
        again: list[Question] = []
        for question, answer in told:
            if answer.text is None:
                question.is_alone = True
                again.append(question)
                continue
            facts: dict[str, object] = {
                "model": model,
                "peer": peer,
                "usage": answer.usage,
                "attempts": question.attempts,
                "duration_s": answer.duration_s,
            }
            good.append((question, Reply(text=answer.text, facts=facts)))
        if good:
            self._tell(good, self._written)
        self._wait_again(again)

    def _wait_again(self, questions: Sequence[Question]) -> None:
        self.waiting.extend(questions)
        self._begin(len(questions))

    def _begin(self, count: int) -> None:
        for _ in range(min(count, int(self._at_a_time.total_tokens))):
            self._nursery.start_soon(self._work)
