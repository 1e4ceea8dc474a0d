"""What a piece of work is to the worker: which lane it queues in and how long it may take.

A guess, made from what was asked and from what such work took here before; offers promise it, the
line is measured by it, submitters are charged it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from kowalski.mesh.core.placement import UNMEASURED_TOKENS_PER_S, Kind, Need, work_of
from kowalski.mesh.core.prefixes import Prefix, prefixes_of
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.folding import FoldAsked, FoldDone
from kowalski.protocol.messages.inference import (
    CompletionAsked,
    CompletionDone,
    CompletionsAsked,
    CompletionsDone,
    TokensAsked,
    TokensCounted,
)
from kowalski.protocol.messages.placement import Claim, OfferAsked
from kowalski.protocol.messages.repl import CellAsked, CellDone

PROMPT_SPEED = 10.0
"""How many times faster a model reads than it writes, where that was never measured."""

COMPLETION_TOKENS = 128.0
"""Of a reply, before the first was seen."""

JobKind = Kind | Literal["counting"]
"""What is placed; and counting tokens, for which a model need not run, but takes a processor."""

COST_S: dict[JobKind, float] = {"code": 1.0, "inference": 3.0, "folding": 0.2, "counting": 0.5}
"""Of work that was never done here."""

TOKEN_BYTES = 4

WEIGHT = 0.05
"""Of the latest in an average of 20 and more. What work takes differs by nature: at 0.2 a single
long job made its worker look slow, or a short one a slow worker fast, to all who asked next.
"""


@dataclass(frozen=True, slots=True)
class Job:
    """`count`: of questions that are asked one after the other; the tokens are of all of them."""

    kind: JobKind
    language: str | None = None
    model: str | None = None
    prompt_tokens: int | None = None
    max_tokens: int | None = None
    prefixes: tuple[str, ...] = ()
    count: int = 1
    work: str = field(init=False, compare=False)
    """What is comparable with each other when it comes to how long it takes."""

    def __post_init__(self) -> None:
        kind = self.kind
        work = kind if kind == "counting" else work_of(kind, self.language, self.model)
        object.__setattr__(self, "work", work)

    @property
    def need(self) -> Need:
        """What a peer must have for it."""
        kind = "inference" if self.kind == "counting" else self.kind
        return Need(kind, language=self.language, model=self.model)

    @property
    def lane(self) -> str:
        """Whose slots it takes: all languages share the processors, each model has its own."""
        return self.work if self.kind == "inference" else self.kind


@dataclass(frozen=True, slots=True)
class Request:
    """A job and who asked for it on what grounds."""

    job: Job
    claim: Claim
    remaining_s: float
    prefixes: tuple[Prefix, ...] = ()
    goes_on: bool = False
    """It is of a task that is under way; of a cell, of a session that is here."""
    is_bound: bool = False
    """And that session may not be begun again elsewhere."""


@dataclass(frozen=True, slots=True)
class Speeds:
    """Of one model here, in tokens a second, as measured; None until it was.

    `load_s` is what comes before, if the model is not in memory.
    """

    generation: float | None = None
    prompt: float | None = None
    load_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Cost:
    """`saved_s` is what the cached tokens have taken off `seconds` already."""

    seconds: float
    saved_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Average:
    """Of all until there are many, then moving: the first few are not believed for long."""

    value: float
    count: int = 1

    def add(self, value: float) -> Average:
        count = self.count + 1
        return Average(self.value + max(WEIGHT, 1.0 / count) * (value - self.value), count)


@dataclass(frozen=True, slots=True)
class Usual:
    """Averages of what was done here: seconds by work, tokens of a reply by model."""

    seconds: dict[str, Average] = field(default_factory=dict)
    reply_tokens: dict[str, Average] = field(default_factory=dict)

    def cost(self, job: Job, speeds: Speeds, cached_tokens: int = 0) -> Cost:
        if job.kind != "inference":
            return Cost(_average(self.seconds, job.work, COST_S[job.kind]))
        if speeds.generation is None and (job.prompt_tokens is None or job.work in self.seconds):
            each_s = _average(self.seconds, job.work, COST_S["inference"])
            return Cost(each_s * job.count + speeds.load_s)
        generation = speeds.generation or UNMEASURED_TOKENS_PER_S
        prompt = speeds.prompt or PROMPT_SPEED * generation
        reply = self.usual_reply_tokens(job.work) * job.count
        if job.max_tokens is not None:
            reply = min(reply, float(job.max_tokens))
        saved_s = min(cached_tokens, job.prompt_tokens or 0) / prompt
        reads_s = (job.prompt_tokens or 0) / prompt - saved_s
        return Cost(speeds.load_s + reads_s + reply / generation, saved_s)

    def usual_reply_tokens(self, work: str) -> float:
        return _average(self.reply_tokens, work, COMPLETION_TOKENS)

    def learn(self, job: Job, took_s: float, done: Message | None = None) -> Usual:
        """Take in what a job took, from its first to its last moment in a slot.

        `done` is how it ended: replies of models tell how many tokens they have.
        """
        work = job.work
        seconds = _averaged(self.seconds, work, took_s / job.count)
        reply_tokens = self.reply_tokens
        if isinstance(done, CompletionDone | CompletionsDone):
            tokens = done.usage.completion_tokens / job.count
            reply_tokens = _averaged(reply_tokens, work, tokens)
        return Usual(seconds, reply_tokens)


def request_of(message: Message) -> Request | None:
    """The job that a request asks for; None for requests that take no slot."""
    match message:
        case CellAsked():
            job = Job("code", language=message.language)
            goes_on = bool(message.after)
            return Request(
                job,
                message.claim,
                message.remaining_s,
                goes_on=goes_on,
                is_bound=goes_on and message.is_bound,
            )
        case CompletionAsked():
            said = tuple([(one.role, one.content) for one in message.messages])
            prefixes = _prefixes(message.model, said)
            job = Job(
                "inference",
                model=message.model,
                prompt_tokens=prefixes[0].tokens if prefixes else 0,
                max_tokens=message.max_tokens,
                prefixes=tuple(one.digest for one in prefixes),
            )
            return Request(
                job, message.claim, message.remaining_s, prefixes, goes_on=_is_of_a_task(message)
            )
        case CompletionsAsked():
            count = max(1, len(message.prompts))
            job = Job(
                "inference",
                model=message.model,
                prompt_tokens=sum(map(prompt_tokens, message.prompts)),
                max_tokens=None if message.max_tokens is None else message.max_tokens * count,
                count=count,
            )
            return Request(job, message.claim, message.remaining_s, goes_on=_is_of_a_task(message))
        case FoldAsked():
            return Request(
                Job("folding"), message.claim, message.remaining_s, goes_on=_is_of_a_task(message)
            )
        case TokensAsked():
            return Request(Job("counting", model=message.model), Claim(), message.remaining_s)
        case _:
            return None


@lru_cache(maxsize=1)
def _prefixes(model: str, said: tuple[tuple[str, str], ...]) -> tuple[Prefix, ...]:
    """Who places a prompt on its own node looks at it there once more, in the next moment."""
    return prefixes_of(model, said)


def prompt_tokens(prompt: str) -> int:
    """Of a prompt that stands alone; an estimate, as `prefixes_of` makes it."""
    return len(prompt.encode()) // TOKEN_BYTES + TOKEN_BYTES


def _is_of_a_task(message: CompletionAsked | CompletionsAsked | FoldAsked) -> bool:
    return message.claim.submitter is not None


def job_of(asked: OfferAsked) -> Job | None:
    """The job that an offer is asked for; None for kinds that only newer peers know."""
    kinds: dict[str, Kind] = {"code": "code", "inference": "inference", "folding": "folding"}
    kind = kinds.get(asked.kind)
    if kind is None:
        return None
    return Job(
        kind,
        language=asked.language,
        model=asked.model,
        prompt_tokens=asked.prompt_tokens,
        max_tokens=asked.max_tokens,
        prefixes=asked.prefixes,
    )


def is_done(message: Message) -> bool:
    """Whether this is how a job ends that went well, and so tells how long such work takes."""
    return isinstance(
        message, CellDone | CompletionDone | CompletionsDone | FoldDone | TokensCounted
    )


def _average(averages: dict[str, Average], name: str, otherwise: float) -> float:
    known = averages.get(name)
    return otherwise if known is None else known.value


def _averaged(averages: dict[str, Average], name: str, value: float) -> dict[str, Average]:
    before = averages.get(name)
    average = Average(value) if before is None else before.add(value)
    updated = dict(averages)
    updated.pop(name, None)  # to the end: the latest done
    if len(updated) >= WORKS_MAX:
        del updated[next(iter(updated))]
    updated[name] = average
    return updated


WORKS_MAX = 256
