"""Many short questions in one request, put to the model one after the other.

They take one slot of it together. Answers are told as they come, those of a moment in one message.
"""

from __future__ import annotations

from collections.abc import Iterator

import trio

from kowalski.mesh.conversation import Conversation
from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.backends.seam import BackendError, Completed
from kowalski.node.services.kept_calls import Complete, Once, no_of
from kowalski.protocol.errors import RequestFailedError, RequestRefusedError
from kowalski.protocol.messages import inference as wire
from kowalski.protocol.messages.base import line, sayable

MOMENT_S = 0.2
"""How long an answer may wait for company: what is told together is one entry of a journal, and the
cell that asked so many questions goes on when it has all answers."""

TOLD_BYTES_MAX = 256 * 1024
"""Beyond this they wait no longer: with the longest text behind it, it still fits a frame."""

SERVERS_FAULT = frozenset({"unreachable", "model_missing", "overloaded"})
"""What of a question's failure is no fault of the question: the others go elsewhere as well."""


class OneByOne:
    """`run` answers all prompts of `request`; then the facts about all of them are here."""

    def __init__(
        self,
        conversation: Conversation,
        request: wire.CompletionsAsked,
        complete: Complete,
        once: Once,
    ) -> None:
        self._conversation = conversation
        self._request = request
        self._complete = complete
        self._once = once
        self._telling = _Telling(conversation)
        self.model = request.model
        self.backend = ""
        self.usage = wire.Usage(prompt_tokens=0, completion_tokens=0)

    async def run(self) -> None:
        """Raises BackendError: the server can do none of them; those before were answered."""
        async with open_plain_nursery() as nursery:
            nursery.start_soon(self._telling.keep_telling)
            try:
                for slot, one in enumerate(calls_of(self._request)):
                    await self._telling.tell(await self._one(slot, one))
            except (BackendError, RequestRefusedError):
                await self._telling.say()
                raise
            await self._telling.say()
            nursery.cancel_scope.cancel()

    async def _one(self, slot: int, asked: wire.CompletionAsked) -> wire.OneCompletion:
        began = trio.current_time()
        call = await self._once(self._conversation, asked, self._complete)
        duration_s = trio.current_time() - began
        try:
            done = call.done
        except BackendError as error:
            if error.code in SERVERS_FAULT:
                raise
            return _failed(slot, no_of(error), duration_s)
        except RequestFailedError as failed:  # too long, or cut off
            return _failed(slot, failed, duration_s)
        self.model, self.backend = done.model, done.backend
        self.usage = _sum(self.usage, done.usage)
        text = sayable(call.text)
        return wire.OneCompletion(slot=slot, text=text, usage=done.usage, duration_s=duration_s)


def calls_of(request: wire.CompletionsAsked) -> Iterator[wire.CompletionAsked]:
    """Each prompt as the call that it would be alone."""
    names = request.calls if len(request.calls) == len(request.prompts) else ()
    for slot, prompt in enumerate(request.prompts):
        yield wire.CompletionAsked(
            task=request.task,
            term=request.term,
            model=request.model,
            messages=(wire.ChatMessage(role="user", content=prompt),),
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            sampling=request.sampling,
            call=names[slot] if names else None,
            remaining_s=request.remaining_s,
            claim=request.claim,
        )


class _Telling:
    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._unsaid: list[wire.OneCompletion] = []
        self._bytes = 0
        self._news = trio.Event()
        self._lock = trio.Lock()

    async def tell(self, answer: wire.OneCompletion) -> None:
        self._unsaid.append(answer)
        self._bytes += len((answer.text or "").encode())
        self._news.set()
        if self._bytes > TOLD_BYTES_MAX:
            await self.say()

    async def keep_telling(self) -> None:
        while True:
            await self._news.wait()
            await trio.sleep(MOMENT_S)
            await self.say()

    async def say(self) -> None:
        """All that was not said yet, in order whoever calls this."""
        async with self._lock:
            answers, self._unsaid = tuple(self._unsaid), []
            self._bytes, self._news = 0, trio.Event()
            if answers:
                await self._conversation.send(wire.CompletionsTold(answers=answers))


def usage_of(end: Completed) -> wire.Usage:
    return wire.Usage(
        prompt_tokens=end.prompt_tokens,
        completion_tokens=end.completion_tokens,
        is_estimate=end.usage_is_estimate,
        cached_tokens=end.cached_tokens,
        thinking_tokens=end.thinking_tokens,
    )


def _sum(one: wire.Usage, other: wire.Usage) -> wire.Usage:
    return wire.Usage(
        prompt_tokens=one.prompt_tokens + other.prompt_tokens,
        completion_tokens=one.completion_tokens + other.completion_tokens,
        is_estimate=one.is_estimate or other.is_estimate,
        cached_tokens=one.cached_tokens + other.cached_tokens,
        thinking_tokens=one.thinking_tokens + other.thinking_tokens,
    )


def _failed(
    slot: int, no: RequestRefusedError | RequestFailedError, duration_s: float
) -> wire.OneCompletion:
    is_refused = isinstance(no, RequestRefusedError)
    return wire.OneCompletion(
        slot=slot,
        code=no.reason if isinstance(no, RequestRefusedError) else no.code,
        detail=line(no.detail),
        is_refused=is_refused,
        duration_s=duration_s,
    )
