"""What the answers of model servers have in common: reading a stream, counting, failing.

A dialect (OpenAI's, Ollama's) is a `Reader`: bytes in, events out, no I/O. `AnswerStream` pulls
bytes through it and watches the clock.
"""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Protocol, Self, cast

import trio

from kowalski.node.backends.http import Headers, StreamedReply, retry_after_s
from kowalski.node.backends.lines import excerpt
from kowalski.node.backends.seam import BackendError, Completed, CompletionEvent, Delta

if TYPE_CHECKING:
    from kowalski.node.backends.seam import CompletionRequest, EstimateTokens

ANSWER_CHARS_MAX = 16 * 1024 * 1024
ERROR_BODY_BYTES_MAX = 64 * 1024
# A server that finished its answer may still owe its usage and the end of the stream.
TAIL_TIMEOUT_S = 2.0


class Answer:
    """One answer as it grows: its text, why it ended, and what it cost."""

    def __init__(self, request: CompletionRequest, estimate_tokens: EstimateTokens) -> None:
        self._request = request
        self._estimate_tokens = estimate_tokens
        self._pieces: list[str] = []
        self._chars = 0
        self.finish_reason: str | None = None
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None

    @property
    def is_empty(self) -> bool:
        return not self._chars

    def add(self, text: object) -> list[CompletionEvent]:
        """Another piece: `None` and the empty text are no piece, anything but text is an error."""
        if text is None:
            return []
        if not isinstance(text, str):
            raise BackendError("bad_reply", f"content is no text: {excerpt(text)}")
        if not text:
            return []
        self._pieces.append(text)
        self._chars += len(text)
        if self._chars > ANSWER_CHARS_MAX:
            raise BackendError("bad_reply", f"answer of more than {ANSWER_CHARS_MAX} characters")
        return [Delta(text)]

    def count(self, prompt_tokens: object, completion_tokens: object) -> None:
        """Usage as the server gave it; what is no count is taken as not given."""
        self.prompt_tokens = _count(prompt_tokens, self.prompt_tokens)
        self.completion_tokens = _count(completion_tokens, self.completion_tokens)

    def completed(self) -> Completed:
        """The end, with estimates where the server did not count."""
        assert self.finish_reason is not None
        prompt, completion = self.prompt_tokens, self.completion_tokens
        if prompt is None:
            prompt = sum(self._estimate_tokens(m.content) for m in self._request.messages)
        if completion is None:
            completion = self._estimate_tokens("".join(self._pieces))
        is_estimate = self.prompt_tokens is None or self.completion_tokens is None
        return Completed(self.finish_reason, prompt, completion, is_estimate)


class Reader(Protocol):
    """One dialect of streamed answers."""

    answer: Answer

    @property
    def is_done(self) -> bool:
        """The server said that nothing follows."""
        ...

    def feed(self, data: bytes) -> tuple[list[CompletionEvent], bool]:
        """The deltas in `data`, and whether it was progress: more than comments.

        Raises:
            BackendError: it is no answer.
        """
        ...

    def finish(self) -> list[CompletionEvent]:
        """The deltas in what is left when the body ended; raises as `feed`."""
        ...


class AnswerStream:
    """The iterator that a backend's `complete` gives."""

    def __init__(self, reply: StreamedReply, reader: Reader, *, idle_timeout_s: float) -> None:
        self._reply = reply
        self._reader = reader
        self._idle_timeout_s = idle_timeout_s
        self._idle_at = trio.current_time() + idle_timeout_s
        self._ready: deque[CompletionEvent] = deque()
        self._is_over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> CompletionEvent:
        while not self._ready:
            if self._is_over:
                raise StopAsyncIteration
            await self._pull()
        return self._ready.popleft()

    async def _pull(self) -> None:
        data = await self._receive()
        if data:
            events, is_progress = self._reader.feed(data)
            if is_progress:
                wait_s = self._idle_timeout_s
                if self._reader.answer.finish_reason is not None:
                    wait_s = min(wait_s, TAIL_TIMEOUT_S)
                self._idle_at = trio.current_time() + wait_s
        else:
            events = self._reader.finish()
        self._ready.extend(events)
        if self._reader.is_done or not data:
            await self._end(self._reader.answer)

    async def _receive(self) -> bytes:
        """The next bytes; after the last words of the answer, any kind of end is an end."""
        error = BackendError("stalled", f"no progress for {self._idle_timeout_s:g} s")
        try:
            with trio.move_on_at(self._idle_at):
                return await self._reply.receive()
        except BackendError as broken:
            error = broken
        if self._reader.answer.finish_reason is None:
            raise error
        return b""

    async def _end(self, answer: Answer) -> None:
        self._is_over = True
        if answer.finish_reason is None and self._reader.is_done and not answer.is_empty:
            # It said that it is done, not why.
            answer.finish_reason = "stop"
        if answer.finish_reason is None:
            detail = "empty answer" if answer.is_empty else "answer ends in the middle"
            raise BackendError("bad_reply", detail)
        self._ready.append(answer.completed())
        await self._reply.drain()


async def failure(reply: StreamedReply, *, has_key: bool) -> BackendError:
    """What an answer with a status other than 200 means."""
    body = b""
    try:
        with trio.move_on_after(2):
            body = await reply.receive_all(bytes_max=ERROR_BODY_BYTES_MAX)
    except BackendError:
        pass  # The status says enough.
    return status_error(reply.status, reply.headers, body, has_key=has_key)


def status_error(status: int, headers: Headers, body: bytes, *, has_key: bool) -> BackendError:
    """A `BackendError` for an HTTP status and whatever explanation came with it."""
    words = f"HTTP {status}"
    explanation = _explanation(body)
    if explanation:
        words = f"{words}: {explanation}"
    match status:
        case 401 | 403:
            fault = "the API key was refused" if has_key else "it wants an API key, none is set"
            return BackendError("rejected", f"{fault} ({words})")
        case 404:
            return BackendError("model_missing", words)
        case 429 | 503:
            return BackendError("overloaded", words, retry_after_s(headers))
        case 408 | 502 | 504:
            return BackendError("unreachable", words)
        case _ if 400 <= status < 500:
            return BackendError("rejected", words)
        case _:
            return BackendError("bad_reply", words)


def error_words(error: object) -> str:
    """The text inside an `error` value, in the shapes that servers use."""
    if isinstance(error, dict):
        message = error.get("message")
        return message if isinstance(message, str) and message else excerpt(error)
    return error if isinstance(error, str) and error else excerpt(error)


def _explanation(body: bytes) -> str:
    text = body.decode(errors="replace").strip()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        # HTML of a proxy is no explanation.
        return "" if text.startswith("<") else text[:200]
    if isinstance(value, dict):
        for name in ("error", "detail", "message"):
            if value.get(name):
                return error_words(value[name])[:200]
    return text[:200]


def _count(value: object, default: int | None) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40
    return cast("int", value) if is_count else default
