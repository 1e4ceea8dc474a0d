"""Model calls of tasks that go on when their asker is lost, for whoever leads the task next.

The shell of `core.kept_calls`. A call is done in a task of its own, and all that comes of it is
told to each who asks for it, from its beginning.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import count

import trio

from kowalski.mesh.conversation import Answer, Conversation
from kowalski.mesh.driver import Driver
from kowalski.node.backends.seam import BackendError
from kowalski.node.core import kept_calls
from kowalski.node.core.kept_calls import CallKey
from kowalski.protocol import codec
from kowalski.protocol.errors import RemoteProtocolError, RequestFailedError, RequestRefusedError
from kowalski.protocol.ids import PeerId, content_hash
from kowalski.protocol.limits import TEXT_BYTES_MAX
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.calls import HELD_MAX, CallsHeld, CallsSought
from kowalski.protocol.messages.inference import CompletionAsked, CompletionDelta, CompletionDone
from kowalski.protocol.messages.placement import Claim

PIECE_CHARS = 4096
"""A kept answer's texts are joined up to this: token by token they are a hundred times as large."""

Complete = Callable[[Conversation, CompletionAsked], Awaitable[CompletionDone]]
"""Answers one call; what comes before its end is said in the conversation."""

Once = Callable[[Conversation, CompletionAsked, Complete], Awaitable["Call"]]
"""Have one call done, or wait for the one like it that is under way; returns when it is over."""


def no_of(error: BackendError) -> RequestRefusedError | RequestFailedError:
    """What a backend's failure is to the asker: go elsewhere now, or something went wrong."""
    if error.code == "overloaded":
        return RequestRefusedError("busy", error.detail, error.retry_after_s)
    if error.code in ("model_missing", "unsupported"):
        return RequestRefusedError("unsupported", error.detail)
    if error.code == "too_long":
        return RequestRefusedError("too_long", error.detail)
    return RequestFailedError("backend", f"{error.code}: {error.detail}")


class Call:
    """One call, from its beginning to its end. To whoever does it, a conversation."""

    is_taken_back = False

    def __init__(self, peer: PeerId) -> None:
        self._peer = peer
        self._said: list[Message] = []
        self._size = 0
        self._news = trio.Event()
        self._done: CompletionDone | None = None
        self._error: Exception | None = None
        self._scope = trio.CancelScope()
        self.is_over = False

    # --- whoever does it ------------------------------------------------------------------------

    @property
    def peer(self) -> PeerId:
        """Who began it."""
        return self._peer

    async def send(self, message: Message, *, more_follows: bool = False) -> None:  # noqa: ARG002
        """Raises RequestFailedError: `too_long`."""
        await trio.lowlevel.checkpoint()
        self._size += _size_of(message)
        if self._size > TEXT_BYTES_MAX:  # its asker takes no more either, but may be lost
            raise RequestFailedError("too_long", f"a reply of over {self._size} bytes")
        self._said.append(message)
        self._tell()

    async def receive(self) -> Message:
        """Nothing more is said to it."""
        await trio.sleep_forever()

    async def run(self, work: Callable[[Conversation], Awaitable[Message]]) -> int | None:
        """Have it done; the size of its answer, None if there is none. Raises nothing."""
        try:
            with self._scope:
                done = await work(self)
                if not isinstance(done, CompletionDone):
                    raise RemoteProtocolError(f"{done.KIND} at the end of a call")
                self._done = done
        except Exception as error:  # noqa: BLE001 raised where it is asked for
            self._error = error
        finally:
            self._said = _joined(self._said)  # those who follow it have the old ones
            self.is_over = True
            self._tell()
        return None if self._done is None else self._size

    def stop(self) -> None:
        """Nobody wants it any more."""
        self._scope.cancel()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    # --- whoever asks for it --------------------------------------------------------------------

    async def follow(self, conversation: Conversation) -> CompletionDone:
        """Say in `conversation` all that came and comes of it; raises as `done`."""
        was_over, said, told = self.is_over, self._said, 0
        while True:
            news = self._news
            while told < len(said):
                told += 1
                more_follows = told < len(said) or self.is_over
                await conversation.send(said[told - 1], more_follows=more_follows)
            if self.is_over:
                # What its peer said of itself then is no news now.
                return self.done.model_copy(update={"hot": None}) if was_over else self.done
            await news.wait()

    async def until_over(self) -> None:
        while not self.is_over:
            await self._news.wait()

    @property
    def done(self) -> CompletionDone:
        """Its end, once it is over; raises what it ended with."""
        if self._error is not None:
            raise self._error
        if self._done is None:
            raise RequestFailedError("cancelled", "nobody wanted this call any more")
        return self._done

    @property
    def text(self) -> str:
        """Its answer so far."""
        return "".join(one.text for one in self._said if isinstance(one, CompletionDelta))


class KeptCalls:
    """`run` keeps its time. Calls are done in `nursery`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._askers = count()
        self._calls: dict[CallKey, Call] = {}
        self._begun: list[kept_calls.Begin] = []
        self._driver: Driver[kept_calls.KeptCalls, kept_calls.Event, kept_calls.Effect] = Driver(
            kept_calls.KeptCalls(),
            step=kept_calls.step,
            wake_at=kept_calls.wake_at,
            time_passed=kept_calls.TimePassed(),
            perform=self._perform,
        )

    async def run(self) -> None:
        """Stop orphans and forget old answers, until cancelled."""
        await self._driver.run()

    def keeping(self, answer: Answer) -> Answer:
        """`answer`, but a model call of a task that was asked before is joined, or known."""

        async def kept(conversation: Conversation, request: Message) -> Message:
            match request:
                case CallsSought():
                    return self._tell(request)
                case CompletionAsked() if (key := key_of(request)) is not None:
                    asker = next(self._askers)
                    call = self._come(conversation.peer, key, asker, request, answer)
                    try:
                        return await call.follow(conversation)
                    except BackendError as error:  # of one that a group began
                        raise no_of(error) from error
                    finally:
                        self._leave(conversation, key, asker)
                case _:
                    return await answer(conversation, request)

        return kept

    async def once(
        self, conversation: Conversation, request: CompletionAsked, complete: Complete
    ) -> Call:
        """One of many calls that `conversation` asks for; returns when it is over.

        Raises:
            RequestRefusedError: `stale`.
        """
        key = key_of(request)
        if key is None:
            return await unkept(conversation, request, complete)
        asker = next(self._askers)
        call = self._come(conversation.peer, key, asker, request, _answer_of(complete))
        try:
            await call.until_over()
        finally:
            self._leave(conversation, key, asker)
        return call

    def _tell(self, sought: CallsSought) -> CallsHeld:
        task = (sought.submitter, sought.task)
        self._driver.handle(kept_calls.Sought(task, sought.term))
        return CallsHeld(calls=kept_calls.held(self._driver.state, task)[-HELD_MAX:])

    def _come(
        self, peer: PeerId, key: CallKey, asker: int, request: CompletionAsked, answer: Answer
    ) -> Call:
        """Raises RequestRefusedError: `stale`."""
        assert request.term is not None
        self._driver.handle(kept_calls.Asked(key, asker, request.term))
        # Whoever asked in an older term was refused just now; what begins is for later terms, too.
        termless = request.model_copy(update={"term": None})
        for begin in self._begun:
            call = self._calls[key] = Call(peer)
            self._nursery.start_soon(self._run, begin, call, termless, answer)
        self._begun.clear()
        return self._calls[key]

    def _leave(self, conversation: Conversation, key: CallKey, asker: int) -> None:
        self._driver.handle(kept_calls.Left(key, asker, conversation.is_taken_back))

    async def _run(
        self, begin: kept_calls.Begin, call: Call, request: CompletionAsked, answer: Answer
    ) -> None:
        size = await call.run(lambda conversation: answer(conversation, request))
        self._driver.handle(kept_calls.Ended(begin.key, begin.run, size))

    def _perform(self, effect: kept_calls.Effect) -> None:
        match effect:
            case kept_calls.Begin():
                self._begun.append(effect)
            case kept_calls.Refuse(term):
                raise RequestRefusedError("stale", f"term {term} was heard")
            case kept_calls.Stop(key):
                self._calls.pop(key).stop()
            case kept_calls.Forget(key):
                del self._calls[key]


def open_kept_calls(nursery: trio.Nursery) -> KeptCalls:
    """Kept as long as `nursery` is open."""
    kept = KeptCalls(nursery)
    nursery.start_soon(kept.run)
    return kept


async def unkept(conversation: Conversation, request: CompletionAsked, complete: Complete) -> Call:
    """A call that ends with its asker; returns when it is over."""
    call = Call(conversation.peer)
    await call.run(lambda own: complete(own, request))
    return call


def key_of(request: CompletionAsked) -> CallKey | None:
    """None: it is no call of a task, and ends with its asker."""
    submitter, task, call = request.claim.submitter, request.task, request.call
    if submitter is None or task is None or call is None or request.term is None:
        return None
    asked = request.model_copy(
        update={"task": None, "term": None, "call": None, "claim": Claim(), "remaining_s": 0.0}
    )
    return CallKey((submitter, task), call, content_hash(codec.encode(asked)))


def _answer_of(complete: Complete) -> Answer:
    async def answer(conversation: Conversation, request: Message) -> Message:
        assert isinstance(request, CompletionAsked)
        return await complete(conversation, request)

    return answer


def _joined(said: Sequence[Message]) -> list[Message]:
    """The same with fewer pieces."""
    joined: list[Message] = []
    texts: list[str] = []
    size = 0

    def flush() -> None:
        nonlocal size
        if texts:
            joined.append(CompletionDelta(text="".join(texts)))
            texts.clear()
            size = 0

    for one in said:
        if not isinstance(one, CompletionDelta) or one != CompletionDelta(text=one.text):
            flush()
            joined.append(one)
            continue
        if size + len(one.text) > PIECE_CHARS:
            flush()
        texts.append(one.text)
        size += len(one.text)
    flush()
    return joined


def _size_of(message: Message) -> int:
    if not isinstance(message, CompletionDelta):
        return 0
    arguments = sum(len(one.arguments) for one in message.tool_calls)
    return len(message.text.encode()) + len(message.thinking.encode()) + arguments
