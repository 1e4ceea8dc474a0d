"""Model calls over HTTP, whatever the client's language: placed, streamed, and ended in words.

An error before the first piece is a status. After it, it is the stream's last event: a stream
never just stops. The client's hanging up cancels the call, down to the model server.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.http.exchange import Exchange, Headers, HttpError, stopping
from kowalski.node.http.faces.words import Answered, Asked, Picture, Stream, http_error
from kowalski.node.services.placed_work import Completion, PlacedWork
from kowalski.protocol.errors import KowalskiError
from kowalski.protocol.messages.inference import CompletionAsked, CompletionDelta, Image, Usage

FIRST_PIECE_S = 5.0
"""Within this time a failure is told as a status; then the stream begins and is kept alive."""

KEEP_ALIVE_S = 10.0
IMAGE_BYTES_INLINE = 256 * 1024
TIMEOUT_S = 600.0
TIMEOUT_S_MAX = 3600.0


@dataclass(frozen=True, slots=True)
class Wording:
    """How one client's language says things; `stream` is given the model's name."""

    whole: Callable[[Answered], Mapping[str, object]]
    stream: Callable[[str], Stream]
    stream_type: str


@dataclass(frozen=True, slots=True)
class Completed:
    """A model call that ended, for counting. `outcome` is `ok`, or what it failed with."""

    model: str
    peer: str
    outcome: str
    usage: Usage | None
    after_s: float


def _ignore(_completed: Completed) -> None:
    pass


class Completions:
    def __init__(
        self,
        work: PlacedWork,
        store: ContentStore,
        *,
        on_end: Callable[[Completed], None] = _ignore,
    ) -> None:
        self._work = work
        self._store = store
        self._on_end = on_end

    async def answer(
        self, exchange: Exchange, asked: Asked, wording: Wording, headers: Headers = ()
    ) -> None:
        """Answer the exchange with what the mesh makes of `asked`.

        Raises:
            HttpError: nothing has been answered yet.
        """
        request = await self._with_pictures(asked)
        if asked.wants_stream:
            async with self._open(request) as call:
                await self._stream(exchange, call, wording.stream(request.model), wording, headers)
        else:
            call = _Call(self._work, request, self._on_end, is_streamed=False)
            completion = await call.finish()
            said = wording.whole(answered(completion))
            told = (*headers, *where_headers(completion))
            await exchange.answer_json(said, headers=told)

    async def _with_pictures(self, asked: Asked) -> CompletionAsked:
        if not asked.pictures:
            return asked.completion
        images = tuple([await self._image(one) for one in asked.pictures])
        return asked.completion.model_copy(update={"images": images})

    async def _image(self, picture: Picture) -> Image:
        if len(picture.data) <= IMAGE_BYTES_INLINE:
            return Image(data=picture.data)
        return Image(content=await self._store.put(picture.data))

    @asynccontextmanager
    async def _open(self, request: CompletionAsked) -> AsyncIterator[_Call]:
        call = _Call(self._work, request, self._on_end, is_streamed=True)
        async with open_plain_nursery() as nursery:
            nursery.start_soon(call.run)
            yield call
            nursery.cancel_scope.cancel()

    async def _stream(
        self,
        exchange: Exchange,
        call: _Call,
        stream: Stream,
        wording: Wording,
        headers: Headers,
    ) -> None:
        with trio.move_on_after(FIRST_PIECE_S):
            await call.wait()
        call.check()
        no_store = ("cache-control", "no-store")
        unheld = ("x-accel-buffering", "no")
        await exchange.begin(
            200, (("content-type", wording.stream_type), no_store, unheld, *headers)
        )
        await exchange.send(stream.begin())
        exchange.heed_stop(call.stop)
        said = b""
        try:
            while True:
                said = b""
                with trio.move_on_after(KEEP_ALIVE_S) as patience:
                    await call.wait()
                if patience.cancelled_caught:
                    said = stream.keep_alive()
                for delta in call.take():
                    said += stream.piece(delta)
                if (completion := call.ended()) is not None:
                    said += stream.end(answered(completion), where(completion))
                    await exchange.end(said)
                    return
                if said:
                    await exchange.send(said)
        except HttpError as failed:
            await exchange.end(said + stream.fail(failed))


class _Call:
    """One model call under way. Its pieces wait here; a reply's size is bounded where it comes.

    Where it is not streamed nobody sees the pieces, so that another peer may say it all once more.
    """

    def __init__(
        self,
        work: PlacedWork,
        request: CompletionAsked,
        on_end: Callable[[Completed], None],
        *,
        is_streamed: bool,
    ) -> None:
        self._work = work
        self._is_streamed = is_streamed
        self._request = request
        self._on_end = on_end
        self._pieces: list[CompletionDelta] = []
        self._changed = trio.Event()
        self._completion: Completion | None = None
        self._failure: HttpError | None = None

    async def run(self) -> None:
        began = trio.current_time()
        model, peer, outcome, usage = self._request.model, "", "cancelled", None
        try:
            whole = await self._work.complete(
                self._request, on_piece=self._hear, may_begin_anew=not self._is_streamed
            )
            self._completion = whole
            model, usage = whole.done.model, whole.done.usage
            peer, outcome = whole.placed.name, "ok"
        except KowalskiError as error:
            self._failure = http_error(error)
            outcome = self._failure.code
        finally:
            after_s = trio.current_time() - began
            self._on_end(Completed(model, peer, outcome, usage, after_s))
        self._changed.set()

    def _hear(self, delta: CompletionDelta) -> None:
        if not self._is_streamed:
            return
        self._pieces.append(delta)
        self._changed.set()

    def stop(self) -> None:
        """The node stops, and whatever has come is the last."""
        self._failure = stopping()
        self._changed.set()

    async def wait(self) -> None:
        """Until there are pieces, or it is over."""
        await self._changed.wait()

    def take(self) -> list[CompletionDelta]:
        """What has come since the last time."""
        taken, self._pieces = self._pieces, []
        if self._completion is None and self._failure is None:
            self._changed = trio.Event()
        return taken

    def check(self) -> None:
        """Raises HttpError: it failed before anything came."""
        if self._failure is not None and not self._pieces:
            raise self._failure

    def ended(self) -> Completion | None:
        """The end, where it is reached. Raises HttpError: it failed."""
        if self._failure is not None:
            raise self._failure
        return self._completion

    async def finish(self) -> Completion:
        """The whole, in place of `run`. Raises HttpError: it failed."""
        await self.run()
        completion = self.ended()
        assert completion is not None
        return completion


def answered(completion: Completion) -> Answered:
    reply = completion.reply
    return Answered(
        text=completion.text,
        thinking=reply.thinking,
        tool_calls=reply.tool_calls,
        logprobs=tuple(reply.logprobs),
        done=completion.done,
    )


def where(completion: Completion) -> dict[str, object]:
    """Who answered, and why that one: for those who want to know."""
    placed = completion.placed
    return {
        "peer": placed.peer,
        "name": placed.name,
        "attempts": placed.attempts,
        "why": placed.why,
        "backend": completion.done.backend,
    }


def where_headers(completion: Completion) -> Headers:
    placed = completion.placed
    return (
        ("x-kowalski-peer", placed.peer),
        ("x-kowalski-name", placed.name),
        ("x-kowalski-attempts", str(placed.attempts)),
        ("x-kowalski-reason", placed.why),
    )


def remaining_s(exchange: Exchange) -> float:
    """How long the client would wait, as it says in `x-kowalski-timeout-s`.

    Raises:
        HttpError: 400.
    """
    given = exchange.request.headers.get("x-kowalski-timeout-s")
    if given is None:
        return TIMEOUT_S
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= TIMEOUT_S_MAX:
        raise HttpError(
            400, "invalid_request", f"x-kowalski-timeout-s: from 0 to {TIMEOUT_S_MAX:g}"
        )
    return seconds


def new_name() -> str:
    """Of an answer: clients take it for a key."""
    return secrets.token_hex(12)
