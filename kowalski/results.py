"""What comes of a program's requests: plain frozen records, made of what the node answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from kowalski.errors import REPLError, REPLTimeout

T = TypeVar("T")
Json = Mapping[str, Any]

State = Literal["answered", "failed", "cancelled", "waiting", "running"]


@dataclass(frozen=True, slots=True)
class TaskMetrics:
    """What a task has used, its child sessions included.

    `calls` are those to models, however many devices were tried; `attempts` the requests that went
    to model servers for them, as these count. `repeated` were answered without asking again.
    """

    turns: int = 0
    cells: int = 0
    calls: int = 0
    attempts: int = 0
    sub_calls: int = 0
    repeated: int = 0
    children: int = 0
    folds: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    duration_s: float = 0.0
    """As this program saw it."""


@dataclass(frozen=True, slots=True)
class Work:
    """One thing that was done: `what`, by whom, and why that one."""

    what: str
    peer: str
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class ExecutionResult(Generic[T]):
    """How a task ended. `text` is the answer; `value` the same, of the type that was asked for.

    `reservation` is empty for an answer without any, else begins with a word: `unready`,
    `extracted`, `unrefined`, `unfinished`, `below`, `unjudged` (docs/how-to/from-python.md).
    """

    task_id: str
    state: State
    text: str
    value: T
    mode: str
    reservation: str
    score: float | None
    """From 0 to 1, if a model judged it."""
    metrics: TaskMetrics
    work: tuple[Work, ...]
    files: tuple[str, ...]
    """Names of the files that its cells left; `Kowalski.files` fetches them."""
    coordinator: str
    """Name of the device that led it last."""
    term: int
    """How many devices have led it."""


@dataclass(frozen=True, slots=True)
class ProgressUpdate:
    """Something that happened in a task.

    `kind` is `submitted`, `coordinator`, `cell`, `call`, `turn`, `fold`, `note`, `output`, `delta`
    or `ended`; `text` says it in words, or is the piece of output or answer itself. `missed` were
    dropped before this one, because nobody took them in time.
    """

    task_id: str
    kind: str
    text: str
    iteration: int
    """Turns so far."""
    max_iterations: int
    active_devices: int
    """That have worked for the task so far."""
    calls: int
    elapsed_s: float
    missed: int = 0
    details: Json = field(default_factory=dict)
    """All that the node said."""


@dataclass(frozen=True, slots=True)
class ExecutionMetrics:
    """How a program's work goes, and how the mesh is, at one moment.

    Times and counts of tasks are of this client since it was built.
    """

    active_devices: int
    """That can be sent work now, and that the device filter lets through."""
    load: float
    """Mean over them: cells that run and wait, for each place."""
    tasks_running: int
    queue_depth: int
    """Tasks of a batch that have not been submitted."""
    tasks_done: int
    tasks_failed: int
    throughput_per_s: float
    """Tasks that ended, over the time since the first began."""
    avg_latency_ms: float
    """From submitting to answer, over those that ended."""
    calls: int
    tokens: int
    missed: int = 0
    """Readings dropped before this one, because nobody took them in time."""


@dataclass(frozen=True, slots=True)
class AskResult:
    """A model's reply."""

    text: str
    thinking: str
    model: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    peer: str
    name: str
    attempts: int


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a program ended. `files` are paths on this device, by name."""

    stdout: str
    stderr: str
    exit_code: int
    status: str
    """`ok`, `error`, `timeout`, `died`, `memory`, `inodes` or `output_flood`."""
    error: str
    value: str
    duration_s: float
    files: Mapping[str, str]
    peer: str
    name: str

    def check(self) -> RunResult:
        """Itself, if all went well.

        Raises:
            REPLTimeout: it was stopped because it took too long.
            REPLError: it ended with another exit code than 0, or died.
        """
        if self.status == "timeout":
            raise REPLTimeout(f"stopped after {self.duration_s:.1f} s", code="timeout")
        if self.status != "ok" or self.exit_code != 0:
            words = self.error or self.stderr[-2000:] or f"exit code {self.exit_code}"
            raise REPLError(words, code=self.status)
        return self


@dataclass(frozen=True, slots=True)
class FoldResult:
    text: str
    source_tokens: int
    tokens: int
    algorithm: str
    peer: str
    name: str
    handle: str | None = None
    """Of the original, for `unfold`; None where there was no room to keep it."""

    @property
    def ratio(self) -> float:
        return self.tokens / self.source_tokens if self.source_tokens else 1.0


@dataclass(frozen=True, slots=True)
class FoundFold:
    """A fold near to a question: `score` is from 0 to 1, the nearest; `text` what is nearest in it.

    `name` is the file that was folded, or how the text begins.
    """

    handle: str
    name: str
    bytes: int
    score: float
    text: str


@dataclass(frozen=True, slots=True)
class Device:
    """One device of the mesh, as this one sees it."""

    peer: str
    name: str
    is_self: bool
    is_routable: bool
    load: float
    rtt_ms: float | None
    languages: tuple[str, ...]
    models: tuple[str, ...]
    roles: tuple[str, ...]


# --- from what the node says --------------------------------------------------------------------


def metrics_of(stats: Json, duration_s: float) -> TaskMetrics:
    names = TaskMetrics.__dataclass_fields__.keys() & stats.keys()
    return TaskMetrics(**{name: int(stats[name]) for name in names}, duration_s=duration_s)


def work_of(rows: Sequence[Json]) -> tuple[Work, ...]:
    return tuple(Work(row["what"], row["peer"], row["name"], row["why"]) for row in rows)


def result_of(done: Json, duration_s: float) -> ExecutionResult[str]:
    """Of the node's last word on a task; `value` is the text."""
    return ExecutionResult(
        task_id=done["task"],
        state=done["state"],
        text=done["answer"],
        value=done["answer"],
        mode=done["mode"],
        reservation=done.get("reason") or "",
        score=done.get("score"),
        metrics=metrics_of(done.get("stats", {}), duration_s),
        work=work_of(done.get("ran", ())),
        files=tuple(one["name"] for one in done.get("files", ())),
        coordinator=done.get("coordinator_name") or "",
        term=done.get("term", 0),
    )


def device_of(row: Json) -> Device:
    return Device(
        peer=row["peer"],
        name=row["name"],
        is_self=row["is_self"],
        is_routable=row["routable"],
        load=row["load"],
        rtt_ms=row["rtt_ms"],
        languages=tuple(row["languages"]),
        models=tuple(row["models"]),
        roles=tuple(row["roles"]),
    )
