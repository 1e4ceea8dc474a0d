"""The seam between a node and whatever runs a model on this device.

A backend lists models, answers chat completions as a stream, and says whether it is well. It
neither chooses a peer nor retries: a failure is one typed `BackendError`, and the mesh decides.
What a request asks for is honoured or refused; what a server would leave out in silence is known
to `features`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

from kowalski.protocol.errors import KowalskiError
from kowalski.protocol.messages.inference import ChatMessage, Logprob, Sampling, Tool

if TYPE_CHECKING:
    import contextlib

BackendErrorCode: TypeAlias = Literal[
    "unreachable",
    "bad_reply",
    "overloaded",
    "model_missing",
    "stalled",
    "rejected",
    "unsupported",
    "too_long",
]

# How many tokens a text is, roughly: used where a server does not count for us.
EstimateTokens: TypeAlias = Callable[[str], int]

DETAIL_CHARS_MAX = 300

PLAIN_SAMPLING = Sampling()
"""All of it left to the server."""


class BackendError(KowalskiError):
    """A model server did not do what was asked.

    `unreachable`: no connection, a reset, or no answer in time; another peer may do better.
    `bad_reply`: it answered something that is no completion (or only the half of one).
    `overloaded`: it said "later"; `retry_after_s` is what it asked for, if it did.
    `model_missing`: it does not have this model.
    `stalled`: it stopped producing for longer than the idle timeout.
    `rejected`: it refuses this request (key, size, option); repeating it there is useless.
    `unsupported`: it would leave out something of the request, or cannot do it at all.
    `too_long`: the prompt is longer than the model reads.
    """

    def __init__(
        self, code: BackendErrorCode, detail: str = "", retry_after_s: float | None = None
    ) -> None:
        detail = detail[:DETAIL_CHARS_MAX]
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code: BackendErrorCode = code
        self.detail = detail
        self.retry_after_s = retry_after_s


@dataclasses.dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that a server can run now; `slots` is how many requests it works on at once.

    `capabilities` are those of `telemetry.Model`, empty where the server does not tell.
    """

    name: str
    context_tokens: int | None = None
    is_warm: bool = False
    slots: int = 1
    size_bytes: int = 0
    capabilities: tuple[str, ...] = ()

    def can(self, capability: str) -> bool:
        """Whether it may have this capability: where nothing is known, it is tried."""
        return not self.capabilities or capability in self.capabilities


@dataclasses.dataclass(frozen=True, slots=True)
class CompletionRequest:
    """As `inference.CompletionAsked`, without the task; `images` are the bytes of each."""

    model: str
    messages: tuple[ChatMessage, ...] = ()
    max_tokens: int | None = None
    temperature: float | None = None
    sampling: Sampling = PLAIN_SAMPLING
    images: tuple[bytes, ...] = ()
    prompt: str | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: Literal["auto", "none", "required"] | None = None
    tool_named: str | None = None
    calls_in_parallel: bool | None = None
    json_schema: str | None = None
    logprobs: int | None = None
    thinking: Literal["off", "on", "low", "medium", "high"] | None = None
    so_far: str = ""

    @property
    def said(self) -> str:
        """All text that the model reads, for an estimate of how long it is."""
        parts = [message.content for message in self.messages]
        parts += [tool.description + tool.parameters for tool in self.tools]
        return "\n".join([*parts, self.prompt or "", self.so_far])


@dataclasses.dataclass(frozen=True, slots=True)
class CallPiece:
    """Of the call number `index`: its id and name once, its arguments (JSON) bit by bit."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of the answer, of the thoughts before it, or of a call; never all empty."""

    text: str = ""
    thinking: str = ""
    calls: tuple[CallPiece, ...] = ()
    logprobs: tuple[Logprob, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Completed:
    """The end of an answer that did end. `finish_reason` is the server's word: stop, length...

    The three durations are what the server measured, None where it did not tell.
    """

    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    usage_is_estimate: bool
    cached_tokens: int = 0
    thinking_tokens: int = 0
    load_s: float | None = None
    prompt_s: float | None = None
    generation_s: float | None = None


CompletionEvent: TypeAlias = Delta | Completed


@dataclasses.dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    model: str
    texts: tuple[str, ...]
    dimensions: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Embedded:
    """`vectors` has one entry for each text: little-endian 32-bit floats."""

    vectors: tuple[bytes, ...]
    dimensions: int
    prompt_tokens: int
    usage_is_estimate: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Fetched:
    """How far a pull is; bytes are 0 where the server does not count. `stage` is a wire code."""

    stage: str
    detail: str = ""
    bytes_done: int = 0
    bytes_total: int = 0


@runtime_checkable
class Backend(Protocol):
    """One model server, at one address."""

    @property
    def name(self) -> str:
        """Which kind it is: one of `probing.Kind`."""
        ...

    @property
    def url(self) -> str:
        """Where it listens, without a trailing slash or credentials."""
        ...

    def left_out(self, request: CompletionRequest, model: ModelInfo) -> tuple[str, ...]:
        """What of the request this server, or this model on it, would leave out; best empty."""
        ...

    async def list_models(self) -> tuple[ModelInfo, ...]:
        """What it could run now.

        Raises:
            BackendError: the list did not come.
        """
        ...

    def complete(
        self, request: CompletionRequest, *, idle_timeout_s: float
    ) -> contextlib.AbstractAsyncContextManager[AsyncIterator[CompletionEvent]]:
        """Answer one chat.

        The iterator gives any number of `Delta`, then `Completed` exactly once, last. Leaving the
        block, or cancelling it, drops the connection, so that the server stops computing.

        Raises:
            BackendError: on entering, or from the iterator; `stalled` when neither the answer nor
                the next piece of it came within `idle_timeout_s` seconds.
        """
        ...

    async def embed(self, request: EmbeddingRequest, *, idle_timeout_s: float) -> Embedded:
        """One vector for each text, in their order.

        Raises:
            BackendError: as `complete`; `unsupported` where this kind of server has none.
        """
        ...

    async def health(self) -> None:
        """Return if it answers.

        Raises:
            BackendError: why it does not.
        """
        ...


@runtime_checkable
class Puller(Protocol):
    """What a backend is besides, if its server fetches models by name, and can drop them."""

    def pull(
        self, model: str, *, idle_timeout_s: float
    ) -> contextlib.AbstractAsyncContextManager[AsyncIterator[Fetched]]:
        """Fetch a model; the iterator ends when it is there. Leaving the block stops it.

        Raises:
            BackendError: `model_missing`, nobody has such a model; `stalled`, no progress for so
                long; else as `Backend.complete`.
        """
        ...

    async def remove(self, model: str) -> None:
        """Delete a model from disk.

        Raises:
            BackendError: `model_missing`, it was not there; else as `Backend.list_models`.
        """
        ...

    async def unload(self, model: str) -> None:
        """Take a model out of memory; it stays on disk. Raises as `remove`."""
        ...


@runtime_checkable
class Counter(Protocol):
    """What a backend is besides, if some servers of its kind count the tokens of a text."""

    async def count_tokens(self, model: str, texts: Sequence[str]) -> tuple[int, ...] | None:
        """Of each text, as the model has it, without a chat template; None: this one cannot tell.

        Raises:
            BackendError: as `Backend.list_models`; `model_missing`.
        """
        ...


@runtime_checkable
class Placer(Protocol):
    """What a backend is besides, if its server splits models over devices."""

    async def loadable(self) -> tuple[ModelInfo, ...]:
        """What could be loaded, if there is memory for it. Raises as `Backend.list_models`."""
        ...

    def load(
        self, model: str, *, strategy: Literal["auto", "pipeline", "tensor"], devices_min: int
    ) -> contextlib.AbstractAsyncContextManager[AsyncIterator[Fetched]]:
        """Load a model; the iterator ends when it answers. Leaving the block takes it down again.

        Raises:
            BackendError: `rejected`, it fits nowhere, with why; `bad_reply`, it was placed and did
                not come up; else as `Backend.list_models`.
        """
        ...

    async def unload(self, model: str) -> None:
        """Take the model out of memory everywhere. Raises as `Puller.remove`."""
        ...
