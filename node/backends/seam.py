"""The seam between a node and whatever runs a model on this device.

A backend lists models, answers chat completions as a stream, and says whether it is well. It
neither chooses a peer nor retries: a failure is one typed `BackendError`, and the mesh decides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

from kowalski.protocol.errors import KowalskiError

if TYPE_CHECKING:
    import contextlib

BackendErrorCode: TypeAlias = Literal[
    "unreachable", "bad_reply", "overloaded", "model_missing", "stalled", "rejected"
]

# How many tokens a text is, roughly: used where a server does not count for us.
EstimateTokens: TypeAlias = Callable[[str], int]

DETAIL_CHARS_MAX = 300


class BackendError(KowalskiError):
    """A model server did not do what was asked.

    `unreachable`: no connection, a reset, or no answer in time; another peer may do better.
    `bad_reply`: it answered something that is no completion (or only the half of one).
    `overloaded`: it said "later"; `retry_after_s` is what it asked for, if it did.
    `model_missing`: it does not have this model.
    `stalled`: it stopped producing for longer than the idle timeout.
    `rejected`: it refuses this request (key, size, option); repeating it there is useless.
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
class ChatMessage:
    role: str
    content: str


@dataclasses.dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that a server can run now; `slots` is how many requests it works on at once."""

    name: str
    context_tokens: int | None = None
    is_warm: bool = False
    slots: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class CompletionRequest:
    model: str
    messages: tuple[ChatMessage, ...]
    max_tokens: int | None = None
    temperature: float | None = None
    stop: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of the answer; never empty."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Completed:
    """The end of an answer that did end. `finish_reason` is the server's word: stop, length..."""

    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    usage_is_estimate: bool


CompletionEvent: TypeAlias = Delta | Completed


@runtime_checkable
class Backend(Protocol):
    """One model server, at one address."""

    @property
    def name(self) -> str:
        """Which kind it is: `ollama`, `exo`, `llama-server`, `lm-studio`, `vllm`, `openai`."""
        ...

    @property
    def url(self) -> str:
        """Where it listens, without a trailing slash or credentials."""
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

    async def health(self) -> None:
        """Return if it answers.

        Raises:
            BackendError: why it does not.
        """
        ...
