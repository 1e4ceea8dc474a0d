"""One cell under way, and those who ask for it: one coordinator, and the next when it is lost.

The cell does not notice. Output and sub-calls go to whoever asked last, and only that one answers:
who leads no more is refused whatever it asks for the cell, and would answer with that. Sub-calls
that were not answered yet are asked again of the next. An asker that takes its request back ends
the cell; when all are lost it goes on for a while, so that whoever leads the task next can join it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio
from pydantic import ValidationError

from kowalski.mesh.conversation import Conversation
from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.core.portions import spans
from kowalski.node.repl.seam import StreamName, SubCall, SubCallResult
from kowalski.protocol.codec import invalid_field
from kowalski.protocol.errors import RemoteProtocolError, RequestFailedError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages import repl as wire
from kowalski.protocol.messages.base import Message

OUTPUT_PIECE_BYTES = 32 * 1024

CALLS_PER_MESSAGE = 256
CALLS_BYTES_MAX = 512 * 1024
"""Of the questions of one message: two of the longest fit a frame."""

CALL_BYTES = 512
"""Of a question besides its text: a name of a model, names of fields."""


OUTPUT_HELD_S = 0.002
"""Output waits so long for more, or for the end: each message costs both sides half a millisecond,
and most programs end right after their last word."""


@dataclass(slots=True)
class _Asker:
    conversation: Conversation
    news: trio.Event = field(default_factory=trio.Event)
    pressing: trio.Event = field(default_factory=trio.Event)
    """A question, or the end: what waits for nothing."""
    was_passed_over: bool = False
    """Something that it answered was not taken, since another had asked after it."""
    _unsent: deque[Message] = field(default_factory=deque)
    _output: deque[tuple[StreamName, bytearray]] = field(default_factory=deque)
    """In pieces, which grow while they wait: as much as a session may say before it is killed."""

    def say(self, message: Message) -> None:
        self._unsent.append(message)
        self.news.set()
        self.pressing.set()

    def end(self) -> None:
        self.news.set()
        self.pressing.set()

    @property
    def has_output(self) -> bool:
        return bool(self._output)

    def show(self, stream: StreamName, data: bytes) -> None:
        """Nothing is lost, for a program's output is told in no other way in full."""
        if not self._output or self._output[-1][0] != stream:
            self._output.append((stream, bytearray()))
        self._output[-1][1].extend(data)
        self.news.set()

    def next(self) -> Message | None:
        """What to send next; questions do not wait for output."""
        if self._unsent:
            return self._unsent.popleft()
        if not self._output:
            return None
        stream, data = self._output[0]
        piece = bytes(data[:OUTPUT_PIECE_BYTES])
        del data[:OUTPUT_PIECE_BYTES]
        if not data:
            self._output.popleft()
        return wire.CellOutput(stream=stream, data=piece)


@dataclass(slots=True)
class _Batch:
    asked: wire.SubCallsAsked
    results: list[wire.SubCallResult] = field(default_factory=list)
    answered: trio.Event = field(default_factory=trio.Event)

    def take(self, told: wire.SubCallsAnswered, *, may_lack_some: bool) -> None:
        """The next of its answers, or the first ones once more from another asker.

        Raises:
            RemoteProtocolError: they are not the next ones, or more than were asked for.
        """
        count = len(self.asked.calls)
        start = count - told.left - len(told.results)
        if may_lack_some and start > len(self.results):
            return
        if not 0 <= start <= len(self.results):
            raise RemoteProtocolError(f"{len(told.results)} results for {count} sub-calls")
        self.results[start:] = told.results
        if len(self.results) == count:
            self.answered.set()


class RunningCell:
    """`run` does it, `attend` serves one asker. `orphan_s`: how long it goes on for nobody.

    `by` is who asked for it first; `led`, the highest term in which it was asked for, and who was
    the first to ask in that.
    """

    def __init__(self, asked: wire.CellAsked, *, by: PeerId, orphan_s: float) -> None:
        self.asked = asked
        self.led: tuple[int, PeerId] = asked.term, by
        self._orphan_s = orphan_s
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._done: wire.CellDone | None = None
        self._error: Exception | None = None
        self._askers: list[_Asker] = []
        """The latest last: it hears and answers."""
        self._askers_changed = trio.Event()
        self._batches: dict[int, _Batch] = {}
        self._batches_made = 0

    def is_the_same(self, asked: wire.CellAsked) -> bool:
        """Whether this is what is asked for, under whatever term."""
        return (asked.cell, asked.code, asked.after, asked.past) == (
            self.asked.cell,
            self.asked.code,
            self.asked.after,
            self.asked.past,
        )

    def asked_again(self, asked: wire.CellAsked, by: PeerId) -> None:
        """Somebody else may lead the task now: what still waits begins as that one asks for it."""
        if asked.term > self.led[0]:
            self.asked, self.led = asked, (asked.term, by)

    def stop(self) -> None:
        """Nobody wants it any more."""
        self._scope.cancel()

    async def run(self, work: Callable[[], Awaitable[wire.CellDone]]) -> None:
        """Do the work. However it ends is told to those who attend."""
        try:
            with self._scope:
                async with open_plain_nursery() as nursery:
                    nursery.start_soon(self._stop_when_orphaned)
                    self._done = await work()
                    nursery.cancel_scope.cancel()
        except Exception as error:  # noqa: BLE001 raised where it is asked for
            self._error = error
        finally:
            self._ended.set()
            for asker in self._askers:
                asker.end()

    async def _stop_when_orphaned(self) -> None:
        while True:
            while self._askers:
                await self._askers_changed.wait()
            with trio.move_on_after(self._orphan_s):
                while not self._askers:
                    await self._askers_changed.wait()
            if not self._askers:
                self.stop()

    # --- those who ask --------------------------------------------------------------------------

    async def attend(self, conversation: Conversation) -> wire.CellDone:
        """Serve one asker until the cell has ended; raises how, if it did not end well."""
        asker = _Asker(conversation)
        self._come(asker)
        try:
            async with open_plain_nursery() as nursery:
                nursery.start_soon(self._listen, asker)
                await self._tell(asker)
                nursery.cancel_scope.cancel()
        except RemoteProtocolError:
            self._leave(asker, takes_it_back=True)
            raise
        finally:
            self._leave(asker, takes_it_back=conversation.is_taken_back)
        if self._error is not None:
            raise self._error
        if self._done is None:
            raise RequestFailedError("cancelled", "nobody wanted this cell any more")
        return self._done

    def _come(self, asker: _Asker) -> None:
        self._askers.append(asker)
        self._change_askers()
        self._ask_again(asker)

    def _ask_again(self, asker: _Asker) -> None:
        for batch in self._batches.values():
            if not batch.answered.is_set():
                asker.say(batch.asked)

    def _leave(self, asker: _Asker, *, takes_it_back: bool) -> None:
        if asker not in self._askers:
            return
        was_heard = self._askers[-1] is asker
        self._askers.remove(asker)
        self._change_askers()
        if takes_it_back and not self._askers:
            self.stop()
        if was_heard and self._askers:
            self._ask_again(self._askers[-1])

    def _change_askers(self) -> None:
        self._askers_changed.set()
        self._askers_changed = trio.Event()

    async def _tell(self, asker: _Asker) -> None:
        """Say what there is to say, and return when the cell has ended and all is said."""
        while True:
            if asker.has_output and not self._ended.is_set():
                with trio.move_on_after(OUTPUT_HELD_S):
                    await asker.pressing.wait()
            asker.news, asker.pressing = trio.Event(), trio.Event()
            is_over = self._ended.is_set()
            while (message := asker.next()) is not None:
                # What the cell said last goes out with how it ended.
                await asker.conversation.send(message, more_follows=is_over)
            if is_over:
                return
            await asker.news.wait()

    async def _listen(self, asker: _Asker) -> None:
        while True:
            message = await asker.conversation.receive()
            if not isinstance(message, wire.SubCallsAnswered):
                raise RemoteProtocolError(f"{message.KIND} while a cell runs")
            batch = self._batches.get(message.batch)
            if self._askers[-1] is not asker:
                asker.was_passed_over = True
            elif batch is not None and not batch.answered.is_set():
                # Else nobody waits for it, or another asker was faster.
                batch.take(message, may_lack_some=asker.was_passed_over)

    # --- the cell -------------------------------------------------------------------------------

    def on_output(self, stream: StreamName, data: bytes) -> None:
        """Shown to whoever asked last; what is remembered is in the outcome."""
        if self._askers:
            self._askers[-1].show(stream, data)

    async def on_sub_calls(self, calls: tuple[SubCall, ...]) -> tuple[SubCallResult, ...]:
        """All at once, in pieces that fit a frame whatever is asked and answered.

        What no message can carry is an error in its slot, and the others are asked all the same.
        """
        results = [SubCallResult()] * len(calls)
        records: list[tuple[int, wire.SubCall]] = []
        for slot, call in enumerate(calls):
            try:
                records.append((slot, _record(call)))
            except ValidationError as wrong:
                words = invalid_field(wrong, shows_value=False)
                results[slot] = SubCallResult(
                    error=f"no sub-call can be made of this: {words}", code="bad_request"
                )

        # Asked in their order, whatever order they are answered in: a journal numbers them so.
        weights = [CALL_BYTES + len(call.prompt.encode()) for _, call in records]
        pieces = [
            records[start:end]
            for start, end in spans(weights, bytes_max=CALLS_BYTES_MAX, count_max=CALLS_PER_MESSAGE)
        ]
        asked = [(piece, self._ask(tuple(call for _, call in piece))) for piece in pieces]
        try:
            for piece, batch in asked:
                await batch.answered.wait()
                for (slot, _), one in zip(piece, batch.results, strict=True):
                    results[slot] = SubCallResult(one.text, one.error, one.code)
        finally:
            for _, batch in asked:
                del self._batches[batch.asked.batch]
        return tuple(results)

    def _ask(self, calls: tuple[wire.SubCall, ...]) -> _Batch:
        self._batches_made += 1
        batch = _Batch(wire.SubCallsAsked(batch=self._batches_made, calls=calls))
        self._batches[self._batches_made] = batch
        if self._askers:
            self._askers[-1].say(batch.asked)
        return batch


def _record(call: SubCall) -> wire.SubCall:
    return wire.SubCall(kind=call.kind, prompt=call.prompt, model=call.model)
