"""The seam between the node and whatever runs code: sessions, cells, sub-calls, answers.

Two implementations: `sessions` with sandboxed kernel processes, `scripted_sessions` for virtual
time. Which session belongs to which task, who may open one, what is journalled: decided above.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

CellStatus = Literal[
    "ok", "error", "timeout", "cancelled", "died", "memory", "inodes", "output_flood"
]
StreamName = Literal["stdout", "stderr"]
SubCallKind = Literal["llm", "rlm", "unfold", "find", "history", "budget"]


@dataclass(frozen=True, slots=True)
class SubCall:
    """What code inside a cell asks of the outside, and waits for.

    `llm` and `rlm`: `prompt` is the question (`model` None: the session's choice). `unfold`:
    `prompt` is the handle, or `HANDLE:FROM` for what is behind so many characters; the text comes
    back, or a piece of it. `find`: `prompt` is a question; a JSON list of the folds nearest to it
    comes back, each with `handle`, `score` and `text`. `history` and `budget`: `prompt` is empty,
    a JSON list of strings comes back, or an object. Who does not serve a kind answers with an
    error: the cell sees an exception.
    """

    prompt: str
    model: str | None = None
    kind: SubCallKind = "llm"


@dataclass(frozen=True, slots=True)
class SubCallResult:
    """Text or error, exactly one of the two. `code` says what kind of error."""

    text: str | None = None
    error: str | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The value of the variable `answer`, as text."""

    content: str
    ready: bool


@dataclass(frozen=True, slots=True)
class Artefact:
    """A file that the cells left in their working folder; `name` is its relative path."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Collected:
    """`omitted` are those that did not fit."""

    files: tuple[Artefact, ...] = ()
    omitted: int = 0


@dataclass(frozen=True, slots=True)
class CellOutcome:
    """How one cell ended.

    `stdout` and `stderr` are cut head-and-tail to the session's limit; the counters tell the full
    size. `value` is the last expression's repr, `error` a traceback or a reason; both are cut too.
    `answer` is the current value after the cell, None in languages that have none and when the
    session is lost. `exit_code` is None where the cell was killed. `memory` with `session_alive`
    means that the language survived running out of memory.
    """

    status: CellStatus
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    value: str | None = None
    error: str | None = None
    answer: Answer | None = None
    variables_digest: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    """The beginning of a digest of each, as far as the kernel tells them apart."""
    clock: tuple[int, ...] = ()
    """What it was told of the time, in microseconds since 1970: as `repl.CellDone.clock`."""
    exit_code: int | None = None
    duration_s: float = 0.0
    session_alive: bool = True


@dataclass(frozen=True, slots=True)
class Scene:
    """What a program that is run alone finds: its name, its arguments, something to read."""

    name: str = ""
    arguments: tuple[str, ...] = ()
    stdin: Path | None = None


WAITING_MAX = 24
"""Sessions that a host keeps beyond its slots, because their cells wait for sub-calls. Three levels
of eight children that all wait for one below them."""

OnOutput = Callable[[StreamName, bytes], None]
"""Hears output as it comes, uncut. Must not block."""

OnSubCalls = Callable[[tuple[SubCall, ...]], Awaitable[tuple[SubCallResult, ...]]]
"""Answers a batch, one result per call, in order. A failed call is a result, nothing to raise.

The cell's clock stands still meanwhile. A cell that queries from several threads causes several
batches at once.
"""


class ReplSession(Protocol):
    """One language, one state, one cell at a time."""

    @property
    def language(self) -> str: ...

    @property
    def is_alive(self) -> bool: ...

    async def run_cell(
        self,
        code: str,
        *,
        timeout_s: float,
        on_output: OnOutput,
        on_sub_calls: OnSubCalls,
        scene: Scene | None = None,
        clock: tuple[int, ...] = (),
    ) -> CellOutcome:
        """Run one cell to its end; a session that is lost answers `died` at once.

        `clock`: what it is told of the time first, where the language can be told.

        `scene` None: arguments and standard input stay as they are.

        Cancelling this interrupts the cell, and kills the session within 1 s if that does not help.

        Raises:
            RequestRefusedError: `busy`, another cell of this session is running.
        """
        ...

    def interrupt(self) -> None:
        """End the running cell as `cancelled`, output so far kept. Nothing running: no effect."""
        ...

    async def collect(self, *, files_max: int, bytes_max: int) -> Collected:
        """Regular files in the working folder, new or changed since they were last asked for.

        Sorted by name, within both limits. Links, pipes, devices and hidden files are skipped. A
        lost session has none.
        """
        ...

    def retire(self) -> None:
        """Nothing more is asked of it: its place is free for another. `close` follows."""
        ...

    async def close(self) -> None:
        """Kill every process of the session and remove its files. Never raises; may come twice."""
        ...


class SessionsHost(Protocol):
    """Owns the sessions of one node."""

    @property
    def tier(self) -> str:
        """How well code is contained: `bubblewrap`, `none`, `scripted`."""
        ...

    @property
    def languages(self) -> Mapping[str, str]:
        """What `open` accepts, with versions, such as `{"python": "3.11.7"}`."""
        ...

    async def wait_changed(self) -> None:
        """Until `languages` has changed."""
        ...

    @property
    def slots(self) -> int:
        """How many sessions may be open at once."""
        ...

    @property
    def slots_free(self) -> int:
        """May be negative while cells whose place was lent run on.

        A cell that waits for its sub-calls lends its place, or those could not open sessions of
        their own; `WAITING_MAX` at most do.
        """
        ...

    async def open(
        self,
        language: str,
        inputs: Mapping[str, Path],
        seed: int,
        files: Mapping[str, Path] | None = None,
    ) -> ReplSession:
        """Open a session that sees `inputs` read-only and draws random numbers from `seed`.

        `files` are copied into its working folder under their names, relative paths.

        Raises:
            RequestRefusedError: `unsupported` language, or `busy`: every slot is taken.
            RequestFailedError: `sandbox`, the session's process did not come up.
        """
        ...
