"""Short questions to models, many in one request: placed once, each answered for itself.

The next peer is asked for what the one before has not answered. Which go together is decided by
`core.question_groups`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf

import trio

from kowalski.mesh.core.placement import Choice, Devices, Need
from kowalski.mesh.mesh import Mesh
from kowalski.node.core.job import Job, prompt_tokens
from kowalski.node.core.question_groups import (
    QUICKEST_S,
    Asking,
    Group,
    Question,
    SecondTries,
    group_size,
    patience_s,
)
from kowalski.node.services import inference
from kowalski.node.services.dispatch import Work
from kowalski.node.services.one_by_one import MOMENT_S
from kowalski.node.services.placed_work import ANY_MODEL, PlacedWork, units
from kowalski.node.services.placing import Attempt
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
    """`wait_s` for the next answers; `may_break_off` spends one of the few tries that there are."""

    asked: CompletionAsked
    hear: Hear
    as_of_now: Callable[[CompletionAsked], Awaitable[CompletionAsked]]
    wait_s: float
    may_break_off: Callable[[], bool]


class PlacedGroups:
    def __init__(self, mesh: Mesh, work: PlacedWork) -> None:
        self._mesh = mesh
        self._work = work
        self._second_tries = SecondTries()

    def share(
        self, asked: CompletionAsked, prompt: str, *, waiting: int, devices: Devices
    ) -> tuple[int, int]:
        """How many questions should go together, if all that wait are like `prompt`, and the slots.

        The size is for the quickest peer: another one gives back what is too much for it. Slots are
        those of all peers: more groups would only stand in line, and be cut small while they do.
        """
        need = self._need(asked, [prompt], devices)
        each_s = self._work.paces.quickest_s(need.work, need.units)
        if each_s is None or group_size(each_s, waiting=waiting, slots=1) == 1:
            return 1, 1
        choices = self._work.placing.dispatch.rank(need).choices
        size = group_size(each_s, waiting=waiting, slots=self._weighed(need, each_s, choices))
        return size, sum(one.candidate.occupancy[need.kind].slots for one in choices)

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
        waiting: Callable[[], int],
        as_of_now: Callable[[CompletionAsked], Awaitable[CompletionAsked]],
        devices: Devices,
    ) -> None:
        """Ask until all of the group are answered; `asked` has what holds for each of them.

        `give_back` hears of those that are too many for the peer that is asked, since so many are
        `waiting`, those of this group among them.

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

        dispatch = self._work.placing.dispatch

        async def attempt(to: Attempt) -> None:
            one = replace(need, units=need.units / len(prompts))
            each_s = self._work.paces.at_s(to.peer, one.work, one.units)
            slots = 1.0
            if each_s is not None:
                slots = self._weighed(one, each_s, dispatch.rank(one).choices)
            give_back(group.keep(group_size(each_s, waiting=waiting(), slots=slots)))
            asking = group.ask()
            if asking is None:
                return
            try:
                wait_s = inf if each_s is None else MOMENT_S + patience_s(each_s)
                how = _How(asked, hear, as_of_now, wait_s, lambda: self._may_break_off(need))
                if not await self._ask(to, asking, how):
                    give_back(group.break_off())
            except RequestRefusedError:
                asking.refused()
                raise
            finally:
                asking.end()

        await self._work.placing.place(
            work,
            attempt,
            remaining_s=asked.remaining_s,
            on_restart=lambda _why: None,
            may_hedge=True,
        )

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
            while True:
                message = None
                with trio.move_on_after(how.wait_s):
                    message = await conversation.receive()
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
