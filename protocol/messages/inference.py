"""Model calls (/kowalski/inference/1): one request, the reply streamed, one final message.

What a request sets is honoured, or the request is refused `unsupported`: never left out in silence.
JSON (schemas, arguments of tools) travels as text, as the model wrote it or will read it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kowalski.protocol.ids import TaskIdField
from kowalski.protocol.limits import FRAME_BYTES_MAX
from kowalski.protocol.messages.base import (
    Code,
    Count,
    Line,
    Message,
    ModelName,
    Name,
    Record,
    Seconds,
    Term,
    Text,
    Utf8BytesMax,
)
from kowalski.protocol.messages.calls import CallName, CallNames
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.placement import Claim
from kowalski.protocol.messages.telemetry import Hot, TokensPerSecond

JSON_BYTES_MAX = 256 * 1024
PIECE_BYTES_MAX = 16 * 1024
VECTORS_BYTES_MAX = 512 * 1024

COMPLETIONS_MAX = 64
"""Prompts of one request: answered one after the other, they must not take long."""

Said = Annotated[str, Utf8BytesMax(FRAME_BYTES_MAX)]
Piece = Annotated[str, Utf8BytesMax(PIECE_BYTES_MAX)]
"""Of a reply: small, so that others on the stream need not wait."""

JsonText = Annotated[str, Utf8BytesMax(JSON_BYTES_MAX)]
ToolName = Annotated[str, Field(min_length=1, max_length=128)]
CallId = Annotated[str, Field(max_length=128)]
Logarithm = Annotated[float, Field(ge=-10_000, le=0, allow_inf_nan=False)]
Penalty = Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)]
BackendName = Annotated[str, Field(max_length=64)]
"""The kind of server, such as `ollama`."""

Sharding = Literal["auto", "pipeline", "tensor"]
ImageNumber = Annotated[int, Field(ge=0, le=63)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

# --- what is asked ------------------------------------------------------------------------------


class ToolCall(Record):
    """A call that a model made: `arguments` is what it wrote, JSON if it was careful."""

    id: CallId = ""
    name: ToolName
    arguments: JsonText = ""


class Image(Record):
    """PNG, JPEG or WebP: its bytes, or by hash where they are too many for a frame."""

    data: Annotated[bytes, Field(max_length=FRAME_BYTES_MAX)] | None = None
    content: ContentRef | None = None


class ChatMessage(Record):
    """One turn. `tool_call` of a `tool` message is the id of the call that it answers.

    `images` are numbers, from 0, of the images of the request.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: Said
    tool_calls: Annotated[
        tuple[ToolCall, ...], Field(strict=False, fail_fast=True, max_length=128)
    ] = ()
    tool_call: CallId = ""
    images: Annotated[
        tuple[ImageNumber, ...], Field(strict=False, fail_fast=True, max_length=64)
    ] = ()


class Tool(Record):
    """A function that the model may call; `parameters` is a JSON schema, empty for none."""

    name: ToolName
    description: Annotated[str, Utf8BytesMax(PIECE_BYTES_MAX)] = ""
    parameters: JsonText = ""


class Sampling(Record):
    """How the next token is drawn, in the words of OpenAI's and llama.cpp's APIs."""

    seed: Annotated[int, Field(ge=0, le=2**53)] | None = None
    stop: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=256)], ...],
        Field(strict=False, fail_fast=True, max_length=16),
    ] = ()
    top_p: Share | None = None
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    min_p: Share | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repeat_penalty: Penalty | None = None


class CompletionAsked(Message):
    """`task` and `term` fence calls made for a task; a single `ask` has neither. `call` names it.

    `prompt` is text to go on with as it stands, without the model's chat template; `messages` is
    empty then. `json_schema` binds the answer, `{}` to any JSON object. `logprobs` is how many
    alternatives to each token are told. `so_far` is what has been answered elsewhere already: the
    deltas go on from there. `tool_choice` may be a tool's name.
    """

    KIND: ClassVar[str] = "inference/completion-asked"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    task: TaskIdField | None = None
    term: Term | None = None
    model: ModelName
    messages: Annotated[
        tuple[ChatMessage, ...], Field(strict=False, fail_fast=True, max_length=4096)
    ]
    images: Annotated[tuple[Image, ...], Field(strict=False, fail_fast=True, max_length=64)] = ()
    prompt: Said | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    sampling: Sampling = Sampling()
    tools: Annotated[tuple[Tool, ...], Field(strict=False, fail_fast=True, max_length=128)] = ()
    tool_choice: Literal["auto", "none", "required"] | None = None
    tool_named: ToolName | None = None
    calls_in_parallel: bool | None = None
    json_schema: JsonText | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    thinking: Literal["off", "on", "low", "medium", "high"] | None = None
    so_far: Text = ""
    call: CallName | None = None
    remaining_s: Seconds
    claim: Claim = Claim()


# --- what is replied ----------------------------------------------------------------------------


class ToolCallPiece(Record):
    """Of the call number `index`: its `id` and `name` once, its `arguments` bit by bit."""

    index: Annotated[int, Field(ge=0, le=1023)] = 0
    id: CallId = ""
    name: Annotated[str, Field(max_length=128)] = ""
    arguments: Piece = ""


class TokenLogprob(Record):
    """`utf8` where the token is no whole character."""

    token: Annotated[str, Utf8BytesMax(1024)]
    logprob: Logarithm
    utf8: Annotated[bytes, Field(max_length=64)] | None = None


class Logprob(TokenLogprob):
    alternatives: Annotated[
        tuple[TokenLogprob, ...], Field(strict=False, fail_fast=True, max_length=20)
    ] = ()


class CompletionDelta(Message):
    """The next piece of the answer, of what the model thought before it, or of a call."""

    KIND: ClassVar[str] = "inference/delta"

    text: Piece = ""
    thinking: Piece = ""
    tool_calls: Annotated[
        tuple[ToolCallPiece, ...], Field(strict=False, fail_fast=True, max_length=128)
    ] = ()
    logprobs: Annotated[
        tuple[Logprob, ...], Field(strict=False, fail_fast=True, max_length=64)
    ] = ()


class Usage(Record):
    """As the backend counted; `is_estimate` where it did not.

    `cached_tokens` of the prompt it held already; `thinking_tokens` of the completion were thought.
    """

    prompt_tokens: Count
    completion_tokens: Count
    is_estimate: bool = False
    cached_tokens: Count = 0
    thinking_tokens: Count = 0


class CompletionDone(Message):
    """The deltas were everything. `held_s` is how long the responder had the request.

    `backend` is the kind of server; `load_s`, `prompt_s` and `generation_s` are what it, or whoever
    asked it, measured.
    """

    KIND: ClassVar[str] = "inference/completion-done"

    model: ModelName
    finish_reason: Code
    usage: Usage
    backend: BackendName = ""
    load_s: Seconds | None = None
    prompt_s: Seconds | None = None
    generation_s: Seconds | None = None
    held_s: Seconds
    hot: Hot | None = None


# --- many at once -------------------------------------------------------------------------------


class CompletionsAsked(Message):
    """Many short questions in one request, asked one after the other in one slot of a model.

    Each of `prompts` is all that a user says; `calls` names each, if given. Everything else holds
    for each, as in `CompletionAsked`; `remaining_s` for all together. Answered by `CompletionsTold`
    as the answers come, then `CompletionsDone`.
    """

    KIND: ClassVar[str] = "inference/completions-asked"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    task: TaskIdField | None = None
    term: Term | None = None
    model: ModelName
    prompts: Annotated[
        tuple[Said, ...],
        Field(strict=False, fail_fast=True, max_length=COMPLETIONS_MAX),
    ]
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    sampling: Sampling = Sampling()
    calls: CallNames = ()
    remaining_s: Seconds
    claim: Claim = Claim()


class OneCompletion(Record):
    """What came of prompt number `slot`: `text`, or a `code` with `detail`.

    `is_refused`: the code is the reason of a refusal, and no model was asked.
    """

    slot: Annotated[int, Field(ge=0, le=COMPLETIONS_MAX - 1)]
    text: Text | None = None
    usage: Usage | None = None
    code: Code | None = None
    detail: Line = ""
    is_refused: bool = False
    duration_s: Seconds = 0.0


class CompletionsTold(Message):
    """The next answers, in the order of the prompts."""

    KIND: ClassVar[str] = "inference/completions-told"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    answers: Annotated[
        tuple[OneCompletion, ...], Field(strict=False, fail_fast=True, max_length=COMPLETIONS_MAX)
    ]


class CompletionsDone(Message):
    """All were told. `usage` is of all of them; the rest as in `CompletionDone`."""

    KIND: ClassVar[str] = "inference/completions-done"

    model: ModelName
    answered: Annotated[int, Field(ge=0, le=COMPLETIONS_MAX)]
    usage: Usage
    backend: BackendName = ""
    held_s: Seconds
    hot: Hot | None = None


# --- embeddings, tokens -------------------------------------------------------------------------


class EmbeddingsAsked(Message):
    """One vector for each text; `dimensions` where the model can give fewer than it has."""

    KIND: ClassVar[str] = "inference/embeddings-asked"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    task: TaskIdField | None = None
    term: Term | None = None
    model: ModelName
    texts: Annotated[tuple[Said, ...], Field(strict=False, fail_fast=True, max_length=2048)]
    dimensions: Annotated[int, Field(ge=1, le=65_536)] | None = None
    remaining_s: Seconds
    claim: Claim = Claim()


class EmbeddingsPiece(Message):
    """The next whole vectors, in the order of the texts: little-endian 32-bit floats, joined."""

    KIND: ClassVar[str] = "inference/embeddings"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    vectors: Annotated[bytes, Field(max_length=VECTORS_BYTES_MAX)]


class EmbeddingsDone(Message):
    """`dimensions` of each vector of the pieces before. No completion tokens are used."""

    KIND: ClassVar[str] = "inference/embeddings-done"

    model: ModelName
    dimensions: Annotated[int, Field(ge=1, le=65_536)]
    usage: Usage
    backend: BackendName = ""
    held_s: Seconds
    hot: Hot | None = None


class TokensAsked(Message):
    """How many tokens each text is for a model, without any chat template around it."""

    KIND: ClassVar[str] = "inference/tokens-asked"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    model: ModelName
    texts: Annotated[tuple[Said, ...], Field(strict=False, fail_fast=True, max_length=2048)]
    remaining_s: Seconds


class TokensCounted(Message):
    """In the order of the texts. `is_estimate` where neither the server nor a file here counts."""

    KIND: ClassVar[str] = "inference/tokens-counted"

    model: ModelName
    counts: Annotated[tuple[Count, ...], Field(strict=False, fail_fast=True, max_length=2048)]
    is_estimate: bool = False
    backend: BackendName = ""
    held_s: Seconds


# --- models -------------------------------------------------------------------------------------


class PullAsked(Message):
    """Fetch a model to the responder's disk. Answered by progress, then `ModelReady`.

    `is_on_demand`: nobody asked for that; somebody asked for the model, and no peer has it.
    """

    KIND: ClassVar[str] = "inference/pull-asked"

    model: ModelName
    backend: Name | None = None
    is_on_demand: bool = False
    remaining_s: Seconds


class ModelProgress(Message):
    """`stage` is a word such as `downloading`; bytes are 0 where nobody counts."""

    KIND: ClassVar[str] = "inference/model-progress"

    stage: Code
    detail: Line = ""
    bytes_done: Count = 0
    bytes_total: Count = 0


class ModelReady(Message):
    """The model can be asked now, under this name."""

    KIND: ClassVar[str] = "inference/model-ready"

    model: ModelName
    backend: BackendName = ""
    detail: Line = ""
    held_s: Seconds
    hot: Hot | None = None


class LoadAsked(Message):
    """Bring a model into memory, over several devices if the server can and it needs to.

    `sharding` is how: `pipeline` splits layers, `tensor` splits each layer. Answered by progress,
    then `ModelReady`.
    """

    KIND: ClassVar[str] = "inference/load-asked"

    model: ModelName
    backend: Name | None = None
    sharding: Sharding = "auto"
    devices_min: Annotated[int, Field(ge=1, le=256)] = 1
    remaining_s: Seconds


class UnloadAsked(Message):
    """Take a model out of memory; with `deletes` also off the disk. Answered by `ModelGone`."""

    KIND: ClassVar[str] = "inference/unload-asked"

    model: ModelName
    backend: Name | None = None
    deletes: bool = False
    remaining_s: Seconds


class ModelGone(Message):
    KIND: ClassVar[str] = "inference/model-gone"

    model: ModelName
    backend: BackendName = ""
    held_s: Seconds


class PreviewsAsked(Message):
    """In which ways the responder's server could load a model. Answered by `Previews`."""

    KIND: ClassVar[str] = "inference/previews-asked"

    model: ModelName
    backend: Name | None = None
    remaining_s: Seconds


class Preview(Record):
    """One way, or with `why_not` none. `link` is what its devices talk over, such as `ring`."""

    sharding: Annotated[str, Field(max_length=32)]
    link: Annotated[str, Field(max_length=32)] = ""
    devices: Annotated[int, Field(ge=0, le=1024)]
    bytes_max: Count = 0
    """On the device that takes most of it."""
    is_chosen: bool = False
    why_not: Line = ""


class Previews(Message):
    """`explanation` says, for a person, which one `auto` takes and why."""

    KIND: ClassVar[str] = "inference/previews"

    model: ModelName
    options: Annotated[tuple[Preview, ...], Field(strict=False, fail_fast=True, max_length=32)]
    explanation: Line = ""
    held_s: Seconds


class CatalogueAsked(Message):
    """All models of the responder whose names contain `query`: ready, on disk, or to be had."""

    KIND: ClassVar[str] = "inference/catalogue-asked"

    query: Annotated[str, Field(max_length=256)] = ""
    remaining_s: Seconds


class Listed(Record):
    """`state`: `warm`, `cold` (loaded when asked), or `loadable` (only on purpose, see above)."""

    name: ModelName
    backend: BackendName
    state: Code
    context_tokens: Count | None = None
    size_bytes: Count = 0
    slots: Annotated[int, Field(ge=0, le=10_000)] = 0
    running: Annotated[int, Field(ge=0, le=10_000)] = 0
    tokens_per_s: TokensPerSecond | None = None
    prompt_tokens_per_s: TokensPerSecond | None = None
    capabilities: Annotated[
        tuple[Code, ...], Field(strict=False, fail_fast=True, max_length=16)
    ] = ()


class CatalogueTold(Message):
    """`left_out`: how many more there are than fit."""

    KIND: ClassVar[str] = "inference/catalogue"
    FRAME_BYTES_MAX: ClassVar[int] = 256 * 1024

    models: Annotated[tuple[Listed, ...], Field(strict=False, fail_fast=True, max_length=256)]
    left_out: Count = 0
    can_pull: bool = False
    held_s: Seconds
