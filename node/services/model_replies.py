"""A reply to a model call as its asker gathers it, and how it goes on after its peer is lost.

Pure: what has come so far, what to ask the next peer for, and what the whole of it cost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from kowalski.protocol.errors import RequestFailedError
from kowalski.protocol.limits import TEXT_BYTES_MAX
from kowalski.protocol.messages.inference import (
    CompletionAsked,
    CompletionDelta,
    CompletionDone,
    Logprob,
    ToolCall,
    ToolCallPiece,
)
from kowalski.rlm.tokens import estimate_tokens

CALL_ID_CHARS_MAX = 128
LOGPROBS_MAX = 100_000


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Reply:
    """What came of one answer, whoever sent it."""

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    logprobs: list[Logprob] = field(default_factory=list)
    _calls: dict[int, _Call] = field(default_factory=dict)
    _bytes: int = 0

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def thinking(self) -> str:
        return "".join(self.thoughts)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(
            ToolCall(id=call.id, name=call.name, arguments="".join(call.arguments))
            for _, call in sorted(self._calls.items())
            if call.name
        )

    @property
    def is_empty(self) -> bool:
        """Nothing has come that anybody could have been shown."""
        return not (self.texts or self.thoughts or self._calls)

    def add(self, delta: CompletionDelta) -> None:
        """Take the next piece.

        Raises:
            RequestFailedError: `too_long`.
        """
        if delta.text:
            self.texts.append(delta.text)
        if delta.thinking:
            self.thoughts.append(delta.thinking)
        self.logprobs.extend(delta.logprobs)
        self._bytes += len(delta.text.encode()) + len(delta.thinking.encode())
        for piece in delta.tool_calls:
            self._add_call(piece)
        if self._bytes > TEXT_BYTES_MAX or len(self.logprobs) > LOGPROBS_MAX:
            raise RequestFailedError("too_long", f"a reply of over {self._bytes} bytes")

    def _add_call(self, piece: ToolCallPiece) -> None:
        call = self._calls.setdefault(piece.index, _Call())
        # Some servers repeat them with every piece, some send them bit by bit: the first stands.
        call.id = call.id or piece.id
        call.name = call.name or piece.name
        call.arguments.append(piece.arguments)
        self._bytes += len(piece.arguments.encode())

    def clear(self) -> None:
        """Forget it all: another peer begins anew."""
        self.texts.clear()
        self.thoughts.clear()
        self.logprobs.clear()
        self._calls.clear()
        self._bytes = 0


class WholeReply:
    """One answer out of the attempts at it: what each was asked, and what came in the end.

    An attempt that fails leaves what it got. The next goes on from there where that can be done;
    else it begins anew, if nobody minds, or the answer ends with what is wrong.
    """

    def __init__(
        self, asked: CompletionAsked, *, may_begin_anew: bool, on_restart: Callable[[str], None]
    ) -> None:
        self._asked = asked
        self._may_begin_anew = may_begin_anew
        self._on_restart = on_restart
        self.reply = Reply()
        self.complaint = ""
        """Of the peer that was lost last."""

    def next_request(self) -> CompletionAsked:
        """What to ask the next peer.

        Raises:
            RequestFailedError: `cut_short`, it cannot be gone on with, nor begun anew.
        """
        if self.reply.is_empty:
            return self._asked
        if can_go_on(self._asked, self.reply):
            return going_on(self._asked, self.reply)
        self.begin_anew("such an answer cannot be gone on with")
        return self._asked

    def is_going_on(self, request: CompletionAsked) -> bool:
        return request.so_far != self._asked.so_far

    def begin_anew(self, why: str) -> None:
        """Drop what came, and say so. Raises as `next_request`."""
        words = f"{self.complaint}; {why}" if self.complaint else why
        if not self._may_begin_anew:
            raise RequestFailedError("cut_short", words)
        self.reply.clear()
        self._on_restart(words)

    def overflowed(self, error: RequestFailedError) -> None:
        """It came to more than a reply may be: nothing that could be gone on with.

        Raises:
            RequestFailedError: `cut_short`, what came cannot be taken back.
        """
        if not self._may_begin_anew:
            raise RequestFailedError("cut_short", str(error)) from error
        self.reply.clear()

    def failed(self, complaint: str) -> None:
        """A peer was lost, with these words. Where it had said nothing, another begins."""
        self.complaint = complaint
        if self.reply.is_empty:
            self._on_restart(complaint)

    def done(self, done: CompletionDone, request: CompletionAsked) -> CompletionDone:
        """The end, with the usage of all of it."""
        return counted_once(done, request.so_far.removeprefix(self._asked.so_far))


def can_go_on(asked: CompletionAsked, reply: Reply) -> bool:
    """Whether another peer can be asked for the rest of this.

    Calls and JSON are bound by grammars that start at the beginning; logprobs would be of another
    model's mind, and thoughts cannot be given back.
    """
    return bool(reply.texts) and not (
        reply.tool_calls
        or asked.tools
        or asked.json_schema is not None
        or asked.logprobs is not None
    )


def going_on(asked: CompletionAsked, reply: Reply) -> CompletionAsked:
    """The request for the rest: the text so far, and as many tokens as are left."""
    left = asked.max_tokens
    if left is not None:
        left = max(1, left - estimate_tokens(reply.text))
    return asked.model_copy(update={"so_far": asked.so_far + reply.text, "max_tokens": left})


def counted_once(done: CompletionDone, before: str) -> CompletionDone:
    """The usage of the whole answer, of which `before` had come from peers that were lost.

    The last peer read it as part of the prompt; it was written, by one that could not count it.
    """
    if not before:
        return done
    tokens = estimate_tokens(before)
    usage = done.usage.model_copy(
        update={
            "prompt_tokens": max(0, done.usage.prompt_tokens - tokens),
            "completion_tokens": done.usage.completion_tokens + tokens,
            "is_estimate": True,
        }
    )
    return done.model_copy(update={"usage": usage})
