"""Short questions to models, many in one request: placed once, each answered for itself.

The next peer is asked for what the one before has not answered. Which go together is decided by
`core.question_groups`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from kowalski.mesh.core.placement import Devices, Need
from kowalski.mesh.mesh import Mesh
from kowalski.node.core.job import Job, prompt_tokens
from kowalski.node.core.question_groups import Asking, Group, Question, group_size
from kowalski.node.services import inference
from kowalski.node.services.dispatch import Work
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


class PlacedGroups:
    def __init__(self, mesh: Mesh, work: PlacedWork) -> None:
        self._mesh = mesh
        self._work = work

    def size(self, asked: CompletionAsked, prompt: str, *, waiting: int, devices: Devices) -> int:
        """How many questions should go together, if all that wait are like `prompt`."""
        need = self._need(asked, [prompt], devices)
        dispatch = self._work.placing.dispatch
        each_s = self._work.paces.usual_s(need.work, need.units)
        if group_size(each_s, waiting=waiting, slots=1) == 1:
            return 1
        return group_size(each_s, waiting=waiting, slots=dispatch.slots(need))

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
        as_of_now: Callable[[CompletionAsked], Awaitable[CompletionAsked]],
        devices: Devices,
    ) -> None:
        """Ask until all of the group are answered; `asked` has what holds for each of them.

        `give_back` hears of those that are too many for the peer that is asked.

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

        async def attempt(to: Attempt) -> None:
            each_s = self._work.paces.at_s(to.peer, need.work, need.units / len(prompts))
            give_back(group.keep(group_size(each_s, waiting=2 * len(prompts), slots=1)))
            asking = group.ask()
            if asking is None:
                return
            try:
                await self._ask(to, asking, asked, hear, as_of_now)
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

    async def _ask(
        self,
        to: Attempt,
        asking: Asking,
        asked: CompletionAsked,
        hear: Hear,
        as_of_now: Callable[[CompletionAsked], Awaitable[CompletionAsked]],
    ) -> None:
        model = asked.model
        if model == ANY_MODEL:
            model = self._work.preferred_model(to.peer)

        async def request() -> CompletionsAsked:
            now = await as_of_now(asked)
            return CompletionsAsked(
                task=now.task,
                term=now.term,
                model=model,
                prompts=tuple(one.prompt for one in asking.questions),
                max_tokens=now.max_tokens,
                temperature=now.temperature,
                sampling=now.sampling,
                remaining_s=min(now.remaining_s, to.remaining_s),
                claim=to.claim,
            )

        async with self._mesh.converse(to.peer, inference.PROTOCOL, request) as conversation:
            while True:
                match message := await conversation.receive():
                    case CompletionsTold(answers=answers):
                        if to.speak():
                            hear(to.peer, model, asking.tell(answers))
                    case CompletionsDone():
                        asking.check()
                        self._mesh.hear_reply(to.peer, message.hot)
                        self._learn(to, asked, message)
                        return
                    case _:
                        kind = CompletionsAsked.KIND
                        raise RemoteProtocolError(f"{message.KIND} in answer to {kind}")

    def _learn(self, to: Attempt, asked: CompletionAsked, done: CompletionsDone) -> None:
        usage = done.usage
        to.sent.units = units(usage.prompt_tokens, usage.completion_tokens)
        model = None if asked.model == ANY_MODEL else asked.model
        job = Job("inference", model=model, count=max(1, done.answered))
        self._work.learn(to, job, done)
