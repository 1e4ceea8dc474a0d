"""The questions that a cell asks of models at once, each answered for itself.

Quick ones are asked in groups (`core.question_groups`), the others alone; which they are shows
while they are asked. What does not come out well in a group is asked again alone, elsewhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf

import trio

from kowalski.mesh.core.blame import Weather
from kowalski.mesh.core.placement import Devices
from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.core.batch_tail import Ahead, ToWhomIsFree
from kowalski.node.core.question_groups import PROMPTS_BYTES_MAX, QUICK_S, Group, Line, Question
from kowalski.node.core.tries import PeersLostError
from kowalski.node.services.placed_groups import PlacedGroups, Share, Told
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
    lost: Callable[[], None]
    """Hears that all who could answer were lost while they were asked."""
    as_of_now: Callable[[CompletionAsked], Awaitable[CompletionAsked]]
    devices: Devices


class GroupedQuestions:
    """`at_a_time` bounds what is under way for one task: questions alone, and groups."""

    def __init__(self, groups: PlacedGroups, purse: Purse, at_a_time: trio.CapacityLimiter) -> None:
        self._groups = groups
        self._purse = purse
        self._at_a_time = at_a_time
        self._line = _Line()

    async def ask(self, questions: Sequence[Question], how: Asking, hear: Hear) -> None:
        """Returns when `hear` has been told of all of them."""
        batch = _Batch(
            self._groups, self._purse, self._at_a_time, how=how, hear=hear, line=self._line
        )
        self._line.batches.append(batch)
        try:
            await batch.run(questions)
        finally:
            self._line.batches.remove(batch)
            batch.give_back()
            if not self._line.batches:
                self._groups.forget_tails()


@dataclass(slots=True, eq=False)
class _Line:
    """All batches that are under way: what a cell asks at once may come in several messages."""

    batches: list[_Batch] = field(default_factory=list)
    freed: trio.Event = field(default_factory=trio.Event)
    """A group has ended."""

    def free(self) -> None:
        self.freed.set()
        self.freed = trio.Event()


class _Batch:
    def __init__(
        self,
        groups: PlacedGroups,
        purse: Purse,
        at_a_time: trio.CapacityLimiter,
        *,
        how: Asking,
        hear: Hear,
        line: _Line,
    ) -> None:
        self.waiting: deque[Question] = deque()
        self.in_line: set[Group] = set()
        """Groups that are taken, some of which have no peer yet."""
        self._held: set[Question] = set()
        """Those whose place in the budget is held: until they are answered, and journalled."""
        self._nursery: trio.Nursery
        self._is_looking = False
        self._groups = groups
        self._purse = purse
        self._at_a_time = at_a_time
        self.how = how
        self._tell = hear
        self._line = line

    async def run(self, questions: Sequence[Question]) -> None:
        async with open_plain_nursery() as self._nursery:
            self._wait(questions)

    def _wait(self, questions: Sequence[Question]) -> None:
        self.waiting.extend(questions)
        if self.waiting and not self._is_looking:
            self._is_looking = True
            self._nursery.start_soon(self._look)

    def give_back(self) -> None:
        """The places of those that were given up."""
        while self._held:
            self._held.pop()
            self._purse.give_back()

    async def _look(self) -> None:
        """Have those that wait asked, one alone or some together at a time."""
        while self.waiting:
            group = Group([])
            await self._at_a_time.acquire_on_behalf_of(group)
            freed, look_at = self._line.freed, self._fill(group)
            if group.unanswered:
                self._nursery.start_soon(self._ask, group)
                continue
            self._at_a_time.release_on_behalf_of(group)
            if self.waiting:
                with trio.move_on_at(look_at):
                    await freed.wait()
        self._is_looking = False

    async def _ask(self, group: Group) -> None:
        try:
            if group in self.in_line:
                await self._ask_group(group)
            else:
                await self._ask_alone(group.unanswered[0])
        finally:
            self._at_a_time.release_on_behalf_of(group)
            self.in_line.discard(group)
            self._line.free()

    def _written(self, question: Question) -> None:
        if question in self._held:
            self._held.remove(question)
            self._purse.give_back()

    def _fill(self, group: Group) -> float:
        """Take those that are asked next, their places in the budget held.

        None where there are as many groups as peers should have, or all is answered. Returns when
        to look again in that case, even if no group has ended.
        """
        if not self.waiting:
            return inf
        taken, weight, share = group.unanswered, 0, Share(0)
        first, how = self.waiting[0], self.how
        if not first.is_alone:
            share = self._groups.share(
                how.asked(), first.prompt, line=self._everything(), devices=how.devices
            )
            match share.place:
                case Ahead(peer=peer):
                    group.at.append(peer)
                case None:
                    return share.look_at
                case ToWhomIsFree():
                    pass
        size = max(1, share.size)
        while self.waiting and len(taken) < size:
            one = self.waiting[0]
            weight += len(one.prompt.encode())
            if taken and (one.is_alone or weight > PROMPTS_BYTES_MAX):
                break
            self.waiting.popleft()
            if self._is_paid(one):
                taken.append(one)
        if taken and share.size:
            self.in_line.add(group)
        return inf

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
        try:
            await self._groups.complete(
                how.asked(),
                group,
                hear=self._hear_group,
                give_back=self._given_back,
                line=self._everything,
                as_of_now=how.as_of_now,
                devices=how.devices,
            )
        except Weather as error:
            if isinstance(error, PeersLostError):
                how.lost()
            if code_of(error, "failed") == "no_peer" or isinstance(error, PeersLostError):
                # Alone, each waits for somebody.
                for one in group.unanswered:
                    one.is_alone = True
                self._wait(group.unanswered)
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

    def _beside(self) -> Iterator[_Batch]:
        """This one, and others whose questions go to the same model."""
        return (one for one in self._line.batches if one.how.model == self.how.model)

    def _given_back(self, questions: Sequence[Question]) -> None:
        """Too many for the peer that is asked now: it was sought until then."""
        self._wait(questions)
        self._line.free()

    def _everything(self) -> Line:
        beside = tuple(self._beside())
        waiting = sum(len(one.waiting) for one in beside)
        return Line(waiting, [group for one in beside for group in one.in_line])

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
        self._wait(again)
