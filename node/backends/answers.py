"""What the answers of model servers have in common: reading a stream, counting, failing.

A dialect (OpenAI's, Ollama's) is a `Reader`: bytes in, events out, no I/O. `AnswerStream` pulls
bytes through it and watches the clock.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol, Self, cast

import trio

from kowalski.node.backends.cutting import EchoCutter, StopCutter
from kowalski.node.backends.http import Headers, StreamedReply, retry_after_s
from kowalski.node.backends.lines import excerpt
from kowalski.node.backends.seam import (
    BackendError,
    BackendErrorCode,
    CallPiece,
    Completed,
    CompletionEvent,
    Delta,
)

if TYPE_CHECKING:
    from kowalski.node.backends.seam import CompletionRequest, EstimateTokens
    from kowalski.protocol.messages.inference import Logprob

GAVE_UP: Final = frozenset({"error", "abort", "unload"})
"""Reasons that exo, vLLM, SGLang and Ollama give for an answer that is none, or half of one."""

BETWEEN_PIECES_S: Final = 20.0
"""Once an answer has begun, its prompt is read and its model loaded: no model is that slow. Calls
of tools come as a whole, though, which can take its time."""

ANSWER_CHARS_MAX = 16 * 1024 * 1024
CALLS_MAX = 1024
ERROR_BODY_BYTES_MAX = 64 * 1024
_CODES: Final[Mapping[int, BackendErrorCode]] = {
    404: "model_missing",
    408: "unreachable",
    429: "overloaded",
    501: "unsupported",
    502: "unreachable",
    503: "overloaded",
    504: "unreachable",
}
_CODES_OF_TOO_LONG: Final = frozenset({400, 413, 422, 500})
# A server that finished its answer may still owe its usage and the end of the stream.
TAIL_TIMEOUT_S = 2.0


class Answer:
    """One answer as it grows: its text, why it ended, and what it cost.

    Sees to what servers do not: texts to stop at, one call at a time, JSON where it was asked for.
    """

    def __init__(self, request: CompletionRequest, estimate_tokens: EstimateTokens) -> None:
        self._request = request
        self._estimate_tokens = estimate_tokens
        self._echo = EchoCutter(request.so_far if request.prompt is None else "")
        self._stop = StopCutter(request.sampling.stop)
        self._pieces: list[str] = []
        self._thoughts: list[str] = []
        self._calls: set[int] = set()
        self._call_chars = 0
        self._has_logprobs = False
        self._chars = 0
        self.finish_reason: str | None = None
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.cached_tokens = 0
        self.thinking_tokens: int | None = None
        self.load_s: float | None = None
        self.prompt_s: float | None = None
        self.generation_s: float | None = None

    @property
    def is_empty(self) -> bool:
        return not (self._chars or self._calls)

    @property
    def is_flowing(self) -> bool:
        """It has begun, and comes piece by piece."""
        return not (self.is_empty or self._request.tools)

    @property
    def has_stopped(self) -> bool:
        """A text to stop at has come: what follows does not matter."""
        return self._stop.has_stopped

    def take(
        self,
        text: object = None,
        *,
        thinking: object = None,
        calls: tuple[CallPiece, ...] = (),
        logprobs: tuple[Logprob, ...] = (),
    ) -> list[CompletionEvent]:
        """Another piece: `None` and the empty text are no piece, anything but text is an error."""
        if self.has_stopped:
            return []
        said = self._stop.feed(self._echo.feed(_text(text, "content")))
        thought = _text(thinking, "thinking")
        kept = tuple(call for call in calls if self._admits(call))
        self._has_logprobs |= bool(logprobs)
        if self._stop.has_stopped:
            self.finish_reason = "stop"
            logprobs = ()
        self._pieces.append(said)
        self._thoughts.append(thought)
        self._chars += len(said) + len(thought)
        if self._chars + self._call_chars > ANSWER_CHARS_MAX:
            raise BackendError("bad_reply", f"answer of more than {ANSWER_CHARS_MAX} characters")
        if not (said or thought or kept or logprobs):
            return []
        return [Delta(said, thought, kept, logprobs)]

    def _admits(self, call: CallPiece) -> bool:
        if self._request.calls_in_parallel is False and call.index > 0:
            return False
        if call.index >= CALLS_MAX:
            raise BackendError("bad_reply", f"more than {CALLS_MAX} calls of tools")
        self._calls.add(call.index)
        self._call_chars += len(call.arguments) + len(call.name)
        return True

    def rest(self) -> list[CompletionEvent]:
        """What was held back in case it would be cut off, once nothing follows."""
        said = self._echo.finish()
        said = "" if self.has_stopped else self._stop.feed(said) + self._stop.finish()
        self._pieces.append(said)
        self._chars += len(said)
        return [Delta(said)] if said else []

    def count(
        self,
        prompt_tokens: object,
        completion_tokens: object,
        *,
        cached_tokens: object = None,
        thinking_tokens: object = None,
    ) -> None:
        """Usage as the server gave it; what is no count is taken as not given."""
        self.prompt_tokens = _count(prompt_tokens, self.prompt_tokens)
        self.completion_tokens = _count(completion_tokens, self.completion_tokens)
        self.cached_tokens = _count(cached_tokens, self.cached_tokens) or 0
        self.thinking_tokens = _count(thinking_tokens, self.thinking_tokens)

    def time(self, *, load_s: object = None, prompt_s: object, generation_s: object) -> None:
        """Durations in seconds as the server measured them."""
        self.load_s = _duration(load_s, self.load_s)
        self.prompt_s = _duration(prompt_s, self.prompt_s)
        self.generation_s = _duration(generation_s, self.generation_s)

    def completed(self) -> Completed:
        """The end, with estimates where the server did not count.

        Raises:
            BackendError: `bad_reply`, it did not do what was asked for.
        """
        assert self.finish_reason is not None
        self._check()
        prompt, completion = self.prompt_tokens, self.completion_tokens
        if prompt is None:
            prompt = self._estimate_tokens(self._request.said)
        thought = "".join(self._thoughts)
        if completion is None:
            completion = self._estimate_tokens("".join(self._pieces))
            completion += self._estimate_tokens(thought) if thought else 0
        thinking = self.thinking_tokens
        if thinking is None:
            thinking = min(self._estimate_tokens(thought), completion) if thought else 0
        is_estimate = self.prompt_tokens is None or self.completion_tokens is None
        return Completed(
            self.finish_reason,
            prompt,
            completion,
            is_estimate,
            min(self.cached_tokens, prompt),
            thinking,
            self.load_s,
            self.prompt_s,
            self.generation_s,
        )

    def _check(self) -> None:
        """What was asked for and can be seen in the answer is there."""
        request = self._request
        if self.finish_reason in GAVE_UP:
            raise BackendError("bad_reply", f"the server gave up: {self.finish_reason}")
        if request.logprobs is not None and self._chars and not self._has_logprobs:
            raise BackendError("bad_reply", "no logprobs, though they were asked for")
        is_whole = self.finish_reason == "stop" and not self._calls and not request.so_far
        if request.json_schema is not None and is_whole:
            text = "".join(self._pieces).rpartition("</think>")[2]
            try:
                json.loads(text)
            except (ValueError, RecursionError) as error:
                raise BackendError(
                    "bad_reply", f"no JSON, though asked: {excerpt(text)}"
                ) from error


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
        self._waited_s = idle_timeout_s
        self._is_over = False

    def __aiter__(self) -> Self:
        return self

    @property
    def has_more_at_hand(self) -> bool:
        """Whether the next event is here already."""
        return bool(self._ready)

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
                if self._reader.answer.is_flowing:
                    wait_s = min(wait_s, BETWEEN_PIECES_S)
                if self._reader.answer.finish_reason is not None:
                    wait_s = min(wait_s, TAIL_TIMEOUT_S)
                self._waited_s = wait_s
                self._idle_at = trio.current_time() + wait_s
        else:
            events = self._finish()
        self._ready.extend(events)
        answer = self._reader.answer
        if self._reader.is_done or not data or answer.has_stopped:
            await self._end(answer)

    def _finish(self) -> list[CompletionEvent]:
        """What is left; half of a last event does not matter if the answer had ended before it."""
        has_ended = self._reader.answer.finish_reason is not None
        try:
            return self._reader.finish()
        except BackendError:
            if not has_ended:
                raise
            return []

    async def _receive(self) -> bytes:
        """The next bytes; after the last words of the answer, any kind of end is an end."""
        try:
            if (data := self._reply.receive_now()) is not None:
                return data
            return await self._reply.receive(until=self._idle_at)
        except BackendError as broken:
            error = broken
        if self._reader.answer.finish_reason is not None:
            return b""
        if error.code == "stalled":
            error = BackendError("stalled", f"no progress for {self._waited_s:g} s")
        raise error

    async def _end(self, answer: Answer) -> None:
        self._is_over = True
        if answer.finish_reason is None and self._reader.is_done and not answer.is_empty:
            # It said that it is done, not why.
            answer.finish_reason = "stop"
        if answer.finish_reason is None:
            detail = "empty answer" if answer.is_empty else "answer ends in the middle"
            raise BackendError("bad_reply", detail)
        self._ready.extend(answer.rest())
        self._ready.append(answer.completed())
        if not answer.has_stopped:
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
    if status in (401, 403):
        fault = "the API key was refused" if has_key else "it wants an API key, none is set"
        words = f"{fault} ({words})"
    code: BackendErrorCode = "rejected" if 400 <= status < 500 else "bad_reply"
    code = _CODES.get(status, code)
    if status in _CODES_OF_TOO_LONG and _is_too_long(explanation):
        code = "too_long"
    return BackendError(code, words, retry_after_s(headers) if code == "overloaded" else None)


def _is_too_long(words: str) -> bool:
    """In the words of llama-server, vLLM, LM Studio, OpenAI and SGLang."""
    said = words.lower()
    if "too large to process" in said:
        return True  # llama-server, of a text to embed
    return "context" in said and any(
        sign in said for sign in ("exceed", "maximum context length", "overflow", "longer than")
    )


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


def _text(value: object, what: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BackendError("bad_reply", f"{what} is no text: {excerpt(value)}")
    return value


def _duration(value: object, default: float | None) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e6:
        return float(value)
    return default


def _count(value: object, default: int | None) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40
    return cast("int", value) if is_count else default
