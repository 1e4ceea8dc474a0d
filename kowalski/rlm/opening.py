"""Decides how a session goes, once, from what was asked and what the mesh can do right now."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from kowalski.protocol.messages.base import line
from kowalski.protocol.messages.journal import Opened
from kowalski.protocol.messages.task import TaskSpec
from kowalski.rlm import schemas
from kowalski.rlm.parsing import Parsed, parse
from kowalski.rlm.session_state import MESSAGE_TOKENS, InputText, SessionLimits, SessionMode
from kowalski.rlm.tokens import estimate_tokens
from kowalski.rlm.window_size import is_worth_counting

NAME_TOKENS: Final = 16
"""What an input's name and the lines around it add to a direct question."""


@dataclass(frozen=True, slots=True)
class CannotOpen:
    """Nothing can be done about this task here and now.

    Codes: `no_model`, `no_language`, `no_blocks`, `too_long`, `bad_schema`.
    """

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class _Situation:
    languages: Collection[str]
    model: str | None
    no_model: str
    prompt: Parsed
    size: str
    is_short: bool


def open_session(
    spec: TaskSpec,
    *,
    languages: Collection[str],
    models: Sequence[str],
    limits: SessionLimits,
    inputs: Sequence[InputText] = (),
    counted_tokens: int | None = None,
) -> Opened | CannotOpen:
    """The first event of the session for `spec`.

    `languages` are those that some peer runs, by the names in `parsing.LANGUAGES`; `models` those
    usable now, the preferred one first. `inputs` holds the texts of the small inputs and the
    beginnings of the others; only when all of them are whole can a model be asked directly.
    `counted_tokens`: of prompt and inputs together, where somebody counts for this model.
    """
    size_tokens = _size_tokens(spec, inputs, limits, counted_tokens)
    if spec.shape is not None:
        try:
            schemas.check_schema(spec.shape.json_schema)
        except schemas.SchemaError as wrong:
            return CannotOpen("bad_schema", str(wrong))
    situation = _Situation(
        languages=languages,
        model=_model(spec, models),
        no_model=_no_model(spec, models),
        prompt=parse(spec.prompt),
        size="large inputs" if size_tokens is None else f"about {size_tokens} tokens",
        is_short=size_tokens is not None and size_tokens <= limits.window_tokens,
    )
    mode, why = (spec.mode, "asked for") if spec.mode != "auto" else _chosen(situation)
    obstacle = _obstacle(mode, situation)
    if mode == "blocks" and spec.shape is not None and situation.model is None:
        obstacle = CannotOpen("no_model", f"{situation.no_model}; a typed answer needs one")
    if obstacle is not None:
        return obstacle
    return Opened(mode=mode, model=situation.model, seed=spec.seed, why=line(why))


def _chosen(situation: _Situation) -> tuple[SessionMode, str]:
    if situation.model is None:
        # Without blocks too: then the obstacle is that there is no model.
        return ("blocks" if situation.prompt.blocks else "direct"), situation.no_model
    return (
        ("direct", f"short: {situation.size}")
        if situation.is_short
        else ("rlm", f"long: {situation.size}")
    )


def _obstacle(mode: SessionMode, situation: _Situation) -> CannotOpen | None:
    if mode == "blocks":
        return _blocks_obstacle(situation)
    if situation.model is None:
        return CannotOpen("no_model", situation.no_model)
    if mode == "direct" and not situation.is_short:
        return CannotOpen("too_long", f"{situation.size}; mode rlm can read it")
    if mode == "rlm" and "python" not in situation.languages:
        return CannotOpen("no_language", "no peer runs python, which a long input needs")
    return None


def _blocks_obstacle(situation: _Situation) -> CannotOpen | None:
    wanted = {block.language for block in situation.prompt.blocks}
    if not wanted.isdisjoint(situation.languages):
        return None
    wanted |= {block.label for block in situation.prompt.skipped if block.label}
    if not wanted:
        return CannotOpen("no_blocks", "the prompt has no code block that says its language")
    return CannotOpen("no_language", f"no peer runs {', '.join(sorted(wanted))}")


def _model(spec: TaskSpec, models: Sequence[str]) -> str | None:
    if spec.model is None:
        return models[0] if models else None
    return spec.model if spec.model in models else None


def _no_model(spec: TaskSpec, models: Sequence[str]) -> str:
    if spec.model is None or not models:
        return "no model is usable anywhere in the mesh"
    return f"model {spec.model} is not usable anywhere; usable: {', '.join(models)}"


def to_count(
    spec: TaskSpec, inputs: Sequence[InputText], limits: SessionLimits
) -> tuple[str, ...] | None:
    """What is worth an exact count before the session opens; None where an estimate decides."""
    texts = _texts_of(spec, inputs)
    if texts is None or spec.mode not in {"auto", "direct"}:
        return None
    estimated = sum(map(estimate_tokens, texts))
    return texts if is_worth_counting(estimated, limits.window_tokens) else None


def _texts_of(spec: TaskSpec, inputs: Sequence[InputText]) -> tuple[str, ...] | None:
    """All that a model would read if it were asked directly; None if that is not known whole."""
    whole = {given.name: given.text for given in inputs if given.is_whole}
    if not all(wanted.name in whole for wanted in spec.inputs):
        return None
    shape = () if spec.shape is None else (spec.shape.json_schema,)
    return (spec.prompt, *whole.values(), *shape)


def _size_tokens(
    spec: TaskSpec, inputs: Sequence[InputText], limits: SessionLimits, counted: int | None
) -> int | None:
    """Of the question that a model would be asked directly, none of which may be cut off."""
    texts = _texts_of(spec, inputs)
    if texts is None:
        return None
    around = MESSAGE_TOKENS + NAME_TOKENS * len(inputs)
    if counted is not None:
        return counted + around
    return limits.scale.at_most(sum(map(estimate_tokens, texts)) + around)
