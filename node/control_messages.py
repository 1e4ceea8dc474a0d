"""What may be asked over the control socket: one frozen model for each verb.

The command line writes these as plain JSON objects; the node reads them here. Unlike messages from
peers, unknown fields are refused: both ends come from one installation, so one is a mistake.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from kowalski.node.complaints import LANGUAGE_PATTERN, TASK_NAME_PATTERN, first_complaint
from kowalski.protocol.errors import ConfigError
from kowalski.protocol.ids import CONTENT_HASH_PATTERN, TaskIdField

if TYPE_CHECKING:
    from collections.abc import Mapping

DAY_S = 86400.0


def _absolute(path: str) -> str:
    # The node has another working directory than the person who typed the path.
    if not PurePath(path).is_absolute():
        raise ValueError("the path must be absolute")
    return path


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("it must not be empty")
    return text


TimeoutS = Annotated[float, Field(gt=0, le=7 * DAY_S, allow_inf_nan=False)]
AbsolutePath = Annotated[
    str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]*$"), AfterValidator(_absolute)
]
Prompt = Annotated[str, AfterValidator(_not_blank)]
TaskName = Annotated[str, Field(pattern=TASK_NAME_PATTERN)]
"""A task, and behind an @ its submitter where several call theirs so."""
ModelName = Annotated[str, Field(min_length=1, max_length=256)]
PeerName = Annotated[str, Field(min_length=1, max_length=128)]
BackendName = Annotated[str, Field(min_length=1, max_length=64)]
Role = Literal["submit", "coordinate", "repl", "infer", "fold"]
ROLES: tuple[Role, ...] = ("submit", "coordinate", "repl", "infer", "fold")
InviteRole = Literal["submit", "coordinate", "repl", "infer", "fold", "admin"]


class Request(BaseModel):
    """The base of all requests; their size is bounded by the line that carried them."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    VERB: ClassVar[str]


class StatusRequest(Request):
    VERB: ClassVar[str] = "status"


class PeersRequest(Request):
    VERB: ClassVar[str] = "peers"


class TopologyRequest(Request):
    VERB: ClassVar[str] = "topology"


class DoctorRequest(Request):
    VERB: ClassVar[str] = "doctor"


class TasksRequest(Request):
    """The latest tasks first."""

    VERB: ClassVar[str] = "tasks"

    limit: Annotated[int, Field(ge=1, le=1000)] = 50


class TaskRequest(Request):
    VERB: ClassVar[str] = "task"

    task: TaskName


class FilesRequest(Request):
    """The files that the cells of a task left, brought to this machine."""

    VERB: ClassVar[str] = "files"

    task: TaskName


class CancelRequest(Request):
    VERB: ClassVar[str] = "cancel"

    task: TaskName


class AttachRequest(Request):
    """Follow a task from its beginning to its end."""

    VERB: ClassVar[str] = "attach"

    task: TaskName


class TraceRequest(Request):
    """`as_trajectory`: events are the lines of a file for the viewer of the reference RLM."""

    VERB: ClassVar[str] = "trace"

    task: TaskName
    as_trajectory: bool = False


class ExplainRequest(Request):
    """Why a task went where it did; without one, the last choices of this node."""

    VERB: ClassVar[str] = "explain"

    task: TaskName | None = None


class ResumeRequest(Request):
    """What is not given stays as it was."""

    VERB: ClassVar[str] = "resume"

    task: TaskName
    timeout_s: TimeoutS | None = None
    max_iterations: Annotated[int, Field(ge=1, le=1000)] | None = None


class ContextFile(BaseModel):
    """A file of this machine that goes with a task; `name` is what the program will see."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
    path: AbsolutePath


class SubmitRequest(Request):
    """`follow` false: reply once the task is accepted, and let it go on without the asker.

    `detach`: pass it on to three peers first, so that it goes on without this device; not followed.
    """

    VERB: ClassVar[str] = "submit"

    prompt: Prompt
    mode: Literal["auto", "blocks", "direct", "rlm"] = "auto"
    model: ModelName | None = None
    context: Annotated[tuple[ContextFile, ...], Field(strict=False, max_length=1000)] = ()
    max_iterations: Annotated[int, Field(ge=1, le=1000)] | None = None
    timeout_s: TimeoutS = 3600.0
    task_id: TaskIdField | None = None
    follow: bool = True
    detach: bool = False
    priority: Literal["batch", "normal", "interactive"] = "normal"
    failover: Literal["redistribute", "fail", "queue"] = "redistribute"
    retries_max: Annotated[int, Field(ge=0, le=64)] = 15
    retry_delay_s: Annotated[float, Field(ge=0, le=600, allow_inf_nan=False)] = 0.0
    retry_is_exponential: bool = True
    submitter_gone: Literal["hold", "abort"] = "hold"
    side_effects: Literal["repeatable", "at_most_once"] = "repeatable"
    devices: Literal["all", "local", "network"] = "all"
    seed: Annotated[int, Field(ge=0, le=2**53)] = 0
    cell_timeout_s: Annotated[float, Field(gt=0, le=DAY_S, allow_inf_nan=False)] = 30.0
    calls_max: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    tokens_max: Annotated[int, Field(ge=1, le=10**12)] | None = None
    depth: Annotated[int, Field(ge=0, le=8)] = 1
    quality: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    quality_patience: Annotated[int, Field(ge=1, le=100)] = 3
    quality_model: ModelName | None = None
    json_schema: Annotated[str, Field(min_length=1, max_length=256 * 1024)] | None = None
    schema_tries: Annotated[int, Field(ge=1, le=100)] = 3
    drafts: Annotated[int, Field(ge=1, le=16)] = 1
    sub_model: ModelName | None = None
    fold_model: ModelName | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    reply_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    answers_once: bool = True
    window_tokens: Annotated[int, Field(ge=256, le=10_000_000)] | None = None
    output_chars: Annotated[int, Field(ge=100, le=1_000_000)] | None = None

    @model_validator(mode="after")
    def _what_models_do_needs_models(self) -> SubmitRequest:
        if self.quality is None and self.quality_model is not None:
            raise ValueError("quality_model without quality: say how good it must be")
        return self


class DryRunRequest(SubmitRequest):
    """Where such a task would go now; nothing is begun, and `follow` means nothing."""

    VERB: ClassVar[str] = "dry_run"


class RunRequest(Request):
    """One program; `args` are what it finds behind its `name`, `files` what lies where it works.

    `wants_files`: those that it leaves there are fetched.
    """

    VERB: ClassVar[str] = "run"

    language: Annotated[str, Field(pattern=LANGUAGE_PATTERN)]
    code: str
    timeout_s: TimeoutS = 600.0
    name: Annotated[str, Field(max_length=255)] = ""
    args: Annotated[tuple[str, ...], Field(strict=False, max_length=1000)] = ()
    stdin: AbsolutePath | None = None
    files: Annotated[tuple[ContextFile, ...], Field(strict=False, max_length=1000)] = ()
    wants_files: bool = False


class AskRequest(Request):
    """One call of a model. `json_schema` is JSON, `{}` for any object; images are files."""

    VERB: ClassVar[str] = "ask"

    prompt: Prompt
    system: str | None = None
    model: ModelName | None = None
    max_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**53)] | None = None
    stop: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=256)], ...],
        Field(strict=False, max_length=16),
    ] = ()
    json_schema: Annotated[str, Field(max_length=256 * 1024)] | None = None
    thinking: Literal["off", "on", "low", "medium", "high"] | None = None
    images: Annotated[tuple[AbsolutePath, ...], Field(strict=False, max_length=64)] = ()
    timeout_s: TimeoutS = 600.0


class EmbedRequest(Request):
    VERB: ClassVar[str] = "embed"

    texts: Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=2048)]
    model: ModelName
    dimensions: Annotated[int, Field(ge=1, le=65_536)] | None = None
    timeout_s: TimeoutS = 600.0


class ModelsRequest(Request):
    """All models whose names contain `query`; with `loadable` also those to be had only."""

    VERB: ClassVar[str] = "models"

    query: Annotated[str, Field(max_length=256)] = ""
    loadable: bool = False


class PullRequest(Request):
    """`on`: a peer by its name, its id or the end of that; else the first that will."""

    VERB: ClassVar[str] = "pull"

    model: ModelName
    on: PeerName | None = None
    backend: BackendName | None = None
    timeout_s: TimeoutS = 86_400.0


class LoadRequest(PullRequest):
    VERB: ClassVar[str] = "load"

    sharding: Literal["auto", "pipeline", "tensor"] = "auto"
    devices_min: Annotated[int, Field(ge=1, le=256)] = 1
    timeout_s: TimeoutS = 3600.0


class PreviewRequest(Request):
    VERB: ClassVar[str] = "preview"

    model: ModelName
    on: PeerName | None = None
    backend: BackendName | None = None
    timeout_s: TimeoutS = 30.0


class UnloadRequest(PullRequest):
    VERB: ClassVar[str] = "unload"

    deletes: bool = False
    timeout_s: TimeoutS = 60.0


class FoldRequest(Request):
    """A text, or a file of this machine; at most one of budget and ratio."""

    VERB: ClassVar[str] = "fold"

    path: AbsolutePath | None = None
    text: str | None = None
    budget_tokens: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    ratio: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    question: str | None = None
    model: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Whom to have it summarised by, and checked; None: no model, `*`: any."""
    fits: ModelName | None = None
    """The budget is in tokens as this model counts them, where a peer can count for it."""
    name: Annotated[str, Field(max_length=256)] | None = None
    """What it is called among `folds`; else the name of the file, or how the text begins."""
    timeout_s: TimeoutS = 600.0

    @model_validator(mode="after")
    def _one_source_one_size(self) -> FoldRequest:
        if (self.path is None) == (self.text is None):
            raise ValueError("give either path or text")
        if self.budget_tokens is not None and self.ratio is not None:
            raise ValueError("give budget_tokens or ratio, not both")
        return self


class UnfoldRequest(Request):
    """The original of a fold, or with a question only what may answer it."""

    VERB: ClassVar[str] = "unfold"

    handle: Annotated[str, Field(pattern=CONTENT_HASH_PATTERN)]
    question: str | None = None
    budget_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    timeout_s: TimeoutS = 60.0

    @model_validator(mode="after")
    def _a_budget_is_for_an_answer(self) -> UnfoldRequest:
        if self.budget_tokens is not None and not self.question:
            raise ValueError("budget_tokens goes with a question")
        return self


class TokensRequest(Request):
    """How many tokens a text, or a file of this machine, is for a model."""

    VERB: ClassVar[str] = "tokens"

    model: ModelName
    path: AbsolutePath | None = None
    text: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> TokensRequest:
        if (self.path is None) == (self.text is None):
            raise ValueError("give either path or text")
        return self


class FoldsRequest(Request):
    """The texts folded on this node whose originals are nearest to a question."""

    VERB: ClassVar[str] = "folds"

    question: Annotated[str, Field(min_length=1)]
    count: Annotated[int, Field(ge=1, le=8)] = 3
    timeout_s: TimeoutS = 60.0


class InviteRequest(Request):
    """`roles` None: all of them but admin."""

    VERB: ClassVar[str] = "invite"

    roles: Annotated[tuple[InviteRole, ...], Field(strict=False, min_length=1)] | None = None
    ttl_s: Annotated[float, Field(gt=0, le=365 * DAY_S, allow_inf_nan=False)] = DAY_S
    uses: Annotated[int, Field(ge=1, le=1000)] = 1


class DrainRequest(Request):
    """Reply once nothing is left here, or after `timeout_s`."""

    VERB: ClassVar[str] = "drain"

    timeout_s: Annotated[float, Field(ge=0, le=DAY_S, allow_inf_nan=False)] = 60.0


class UndrainRequest(Request):
    VERB: ClassVar[str] = "undrain"


class RevokeRequest(Request):
    """`peer` is its id, the end of it, or its name."""

    VERB: ClassVar[str] = "revoke"

    peer: Annotated[str, Field(min_length=1, max_length=128)]
    why: Annotated[str, Field(max_length=200)] = ""


REQUESTS: Mapping[str, type[Request]] = {
    model.VERB: model
    for model in (
        StatusRequest,
        PeersRequest,
        TopologyRequest,
        DoctorRequest,
        TasksRequest,
        TaskRequest,
        FilesRequest,
        CancelRequest,
        AttachRequest,
        ResumeRequest,
        TraceRequest,
        ExplainRequest,
        SubmitRequest,
        DryRunRequest,
        RunRequest,
        AskRequest,
        EmbedRequest,
        ModelsRequest,
        PullRequest,
        LoadRequest,
        PreviewRequest,
        UnloadRequest,
        FoldRequest,
        UnfoldRequest,
        FoldsRequest,
        TokensRequest,
        InviteRequest,
        RevokeRequest,
        DrainRequest,
        UndrainRequest,
    )
}

R = TypeVar("R", bound=Request)


def parse(model: type[R], raw: Mapping[str, object]) -> R:
    """`raw` as a `model`.

    Raises:
        ConfigError: a field is missing, unknown or out of its bounds; the message names it.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{model.VERB}: {first_complaint(error)}") from error


def parse_request(verb: str, raw: Mapping[str, object]) -> Request:
    """The request that `verb` takes; see `parse`.

    Raises:
        ConfigError: also for a verb that there is not.
    """
    model = REQUESTS.get(verb)
    if model is None:
        raise ConfigError(f"unknown verb {verb!r}")
    return parse(model, raw)
