"""Short questions to models, many in one request: placed once, each answered for itself.

The next peer is asked for what the one before has not answered. Which go together is decided by
`core.question_groups`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf

import trio

from kowalski.mesh.core.blame import is_busy
from kowalski.mesh.core.placement import Choice, Devices, Need
from kowalski.mesh.mesh import Mesh
from kowalski.node.core.batch_tail import (
    QUICKEST_S,
    Next,
    Server,
    Tail,
    ToWhomIsFree,
    next_place,
    not_to_ask,
    rest_s,
)
from kowalski.node.core.job import Job, prompt_tokens
from kowalski.node.core.question_groups import (
    QUICK_S,
    Asking,
    Group,
    Line,
    Question,
    SecondTries,
    group_size,
    patience_s,
)
from kowalski.node.services import inference
from kowalski.node.services.dispatch import Work
from kowalski.node.services.one_by_one import MOMENT_S
from kowalski.node.services.placed_work import ANY_MODEL, PlacedWork, units
from kowalski.node.services.placing import Attempt, NotYetError
from kowalski.protocol.errors import RemoteProtocolError, RequestRefusedError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.inference import (
    CompletionAsked,
    CompletionsAsked,
    CompletionsDone,
    CompletionsTold,
    OneCompletion,
)

Told = Sequence[tuple[Question, OneCompletion]]

Hear = Callable[[PeerId, str, Told], None]
"""Answers of a moment, from whom, and of which model."""


@dataclass(frozen=True, slots=True)
class _How:
    """`wait_s` for the next answers, and `begins_s` until the first is begun.

    `may_break_off` spends one of the few tries that there are.
    """

    asked: CompletionAsked
    hear: Hear
    give_back: Callable[[list[Question]], None]
    as_of_now: Callable[[CompletionAsked], Awaitable[CompletionAsked]]
    begins_s: float
    wait_s: float
    may_break_off: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Share:
    """How many questions should go together next, and where; nowhere before `look_at` or an end.

    `size` 0: each is asked alone.
    """

    size: int
    place: Next = field(default_factory=ToWhomIsFree)
    look_at: float = inf


class PlacedGroups:
    def __init__(self, mesh: Mesh, work: PlacedWork) -> None:
        self._mesh = mesh
        self._work = work
        self._second_tries = SecondTries()
        self._tails: dict[str, Tail] = {}
        self._full: set[PeerId] = set()
        """Who would take none ahead of time when it was asked last."""

    def share(self, asked: CompletionAsked, prompt: str, *, line: Line, devices: Devices) -> Share:
        """What to ask next, if all that wait are like `prompt`.

        The size is for the quickest peer: another one gives back what is too much for it.
        """
        need = self._need(asked, [prompt], devices)
        each_s = self._work.paces.quickest_s(need.work, need.units)
        if each_s is None or each_s > QUICK_S:
            return Share(0)
        choices = self._work.placing.dispatch.rank(need).choices
        servers = self._servers(need, choices, line)
        passed_over = self._passed_over(need, servers, line)
        place = next_place(servers, line.offered, passed_over, self._full)
        slots = self._weighed(need, each_s, choices)
        size = group_size(each_s, waiting=line.waiting, slots=slots)
        return Share(size, place, self._tails[need.work].wake_at)

    def forget_tails(self) -> None:
        """Nothing is asked any more: what comes next begins anew."""
        self._tails.clear()
        self._full.clear()

    def _passed_over(self, need: Need, servers: Sequence[Server], line: Line) -> frozenset[PeerId]:
        tail = self._tails.setdefault(need.work, Tail())
        return tail.passed_over(servers, line.unasked, trio.current_time())

    def _servers(self, one: Need, choices: Iterable[Choice], line: Line) -> list[Server]:
        load, paces = line.load(), self._work.paces
        servers = []
        for choice in choices:
            each_s = paces.at_s(choice.peer, one.work, one.units)
            slots = choice.candidate.occupancy[one.kind].slots
            servers.append(Server(choice.peer, each_s, slots, *load.get(choice.peer, (0, 0))))
        return servers

    def _weighed(self, need: Need, each_s: float, choices: Iterable[Choice]) -> float:
        """All slots, each as many as are needed to be as fast where one takes `each_s`."""
        slots, each_s = 0.0, max(each_s, QUICKEST_S)
        for choice in choices:
            there_s = self._work.paces.at_s(choice.peer, need.work, need.units) or each_s
            slots += choice.candidate.occupancy[need.kind].slots * each_s / max(there_s, QUICKEST_S)
        return slots

    def _need(self, asked: CompletionAsked, prompts: Sequence[str], devices: Devices) -> Need:
        model = None if asked.model == ANY_MODEL else asked.model
        need = Need("inference", model=model, devices=devices)
        reply_tokens = self._work.reply_tokens(need, asked.max_tokens)
        read = sum(map(prompt_tokens, prompts))
        return replace(need, units=units(read, reply_tokens * len(prompts)))

    async def complete(
        self,
        asked: CompletionAsked,
        group: Group,
        *,
        hear: Hear,
        give_back: Callable[[list[Question]], None],
        line: Callable[[], Line],
        as_of_now: Callable[[CompletionAsked], Awaitable[CompletionAsked]],
        devices: Devices,
    ) -> None:
        """Ask until all of the group are answered; `asked` has what holds for each of them.

        `give_back` hears of those that are too many for the peer that is asked, with what there is
        besides in the `line`. Who stands in `group.at` is asked first.

        Raises:
            Weather: as `PlacedWork.complete`; what stays unanswered stands in the group.
        """
        prompts = [one.prompt for one in group.unanswered]
        need = self._need(asked, prompts, devices)
        work = Work(
            need,
            claim=asked.claim,
            task=asked.task,
            prompt_tokens=sum(map(prompt_tokens, prompts)),
            max_tokens=None if asked.max_tokens is None else asked.max_tokens * len(prompts),
        )

        one = replace(need, units=need.units / len(prompts))
        rank = self._work.placing.dispatch.rank
        first = group.at.pop() if group.at else None

        def passed_over(failed: frozenset[PeerId]) -> frozenset[PeerId]:
            now = line()
            servers = self._servers(one, rank(one, excluding=failed).choices, now)
            return not_to_ask(servers, self._passed_over(one, servers, now))

        async def attempt(to: Attempt) -> None:
            give_back(group.keep(self._size(to.peer, one, line())))
            begins_s, wait_s = self._waits_s(to, one, line())
            asking = group.ask()
            if asking is None:
                return
            group.at.append(to.peer)
            may_break_off = partial(self._may_break_off, need)
            how = _How(asked, hear, give_back, as_of_now, begins_s, wait_s, may_break_off)
            try:
                await self._ask_some(to, group, asking, how, is_ahead=to.peer == first)
            finally:
                asking.end()
                group.at.remove(to.peer)

        await self._work.placing.place(
            work,
            attempt,
            remaining_s=asked.remaining_s,
            on_restart=lambda _why: None,
            may_hedge=True,
            holder=first,
            passed_over=passed_over,
        )

    async def _ask_some(
        self, to: Attempt, group: Group, asking: Asking, how: _How, *, is_ahead: bool
    ) -> None:
        try:
            if not await self._ask(to, asking, how):
                how.give_back(group.break_off())
        except NotYetError:
            asking.refused()
            raise
        except RequestRefusedError as no:
            asking.refused()
            if not is_ahead or not is_busy(no):
                raise
            # Others have filled its line: no more ahead of time, until one of ours has ended.
            self._full.add(to.peer)
            how.give_back(group.disband())
        else:
            self._full.discard(to.peer)

    def _size(self, peer: PeerId, one: Need, line: Line) -> int:
        """How many of those that wait the peer should be asked now."""
        choices = self._work.placing.dispatch.rank(one).choices
        each_s = self._work.paces.at_s(peer, one.work, one.units)
        return group_size(
            each_s,
            waiting=line.unasked,
            slots=1.0 if each_s is None else self._weighed(one, each_s, choices),
            within_s=rest_s(self._servers(one, choices, line), line.unasked).get(peer, inf),
        )

    def _waits_s(self, to: Attempt, one: Need, line: Line) -> tuple[float, float]:
        """Until a peer begins, since what it has of ours comes first, and then between answers."""
        each_s = self._work.paces.at_s(to.peer, one.work, one.units)
        if each_s is None:
            return 0.0, inf
        before, _ = line.load().get(to.peer, (0, 0))
        slots = max(1, to.choice.candidate.occupancy[one.kind].slots)
        return before * each_s / slots, MOMENT_S + patience_s(each_s)

    def _may_break_off(self, need: Need) -> bool:
        choices = self._work.placing.dispatch.rank(need).choices
        return len(choices) > 1 and self._second_tries.take()

    async def _ask(self, to: Attempt, asking: Asking, how: _How) -> bool:
        """False: the question that is under way takes far too long, and may be asked elsewhere."""
        asked, model = how.asked, how.asked.model
        if model == ANY_MODEL:
            model = self._work.preferred_model(to.peer)

        async def request() -> CompletionsAsked:
            now = await how.as_of_now(asked)
            return CompletionsAsked(
                task=now.task,
                term=now.term,
                model=model,
                prompts=tuple(one.prompt for one in asking.questions),
                max_tokens=now.max_tokens,
                temperature=now.temperature,
                sampling=now.sampling,
                calls=tuple(one.name for one in asking.questions),
                remaining_s=min(now.remaining_s, to.remaining_s),
                claim=to.claim,
            )

        async with self._mesh.converse(to.peer, inference.PROTOCOL, request) as conversation:
            wait_s = how.begins_s + how.wait_s
            while True:
                message = None
                with trio.move_on_after(wait_s):
                    message = await conversation.receive()
                wait_s = how.wait_s
                match message:
                    case None if asking.group.under_way == 1 and how.may_break_off():
                        return False
                    case None:
                        continue
                    case CompletionsTold(answers=answers):
                        self._second_tries.answered(len(answers))
                        if to.speak():
                            how.hear(to.peer, model, asking.tell(answers))
                    case CompletionsDone():
                        asking.check()
                        self._mesh.hear_reply(to.peer, message.hot)
                        self._learn(to, asked, message)
                        return True
                    case _:
                        kind = CompletionsAsked.KIND
                        raise RemoteProtocolError(f"{message.KIND} in answer to {kind}")

    def _learn(self, to: Attempt, asked: CompletionAsked, done: CompletionsDone) -> None:
        usage = done.usage
        to.sent.units = units(usage.prompt_tokens, usage.completion_tokens)
        model = None if asked.model == ANY_MODEL else asked.model
        job = Job("inference", model=model, count=max(1, done.answered))
        self._work.learn(to, job, done)
