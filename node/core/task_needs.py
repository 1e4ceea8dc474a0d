"""What a task would want of peers, told from its spec and the way its session would go."""

from __future__ import annotations

from collections.abc import Iterator

from kowalski.mesh.core.placement import Need
from kowalski.protocol.messages.journal import Opened
from kowalski.protocol.messages.task import TaskSpec
from kowalski.rlm.parsing import parse

RLM_LANGUAGE = "python"
"""In which a model writes its cells."""


def needs_of(spec: TaskSpec, opened: Opened) -> tuple[Need, ...]:
    """Each kind of work once, in the order in which it would come up; sizes are not known yet."""
    return tuple(dict.fromkeys(_needs(spec, opened)))


def _needs(spec: TaskSpec, opened: Opened) -> Iterator[Need]:
    if opened.mode == "blocks":
        for block in parse(spec.prompt).blocks:
            yield Need("code", language=block.language, devices=spec.devices)
    if opened.mode == "rlm":
        yield Need("code", language=RLM_LANGUAGE, devices=spec.devices)
    judge = spec.quality.model if spec.quality is not None else None
    for model in (opened.model, spec.asking.sub_model, judge, spec.asking.fold_model):
        if model is not None:
            yield Need("inference", model=model, devices=spec.devices)
    if opened.mode == "rlm" and spec.asking.fold_model is None:
        yield Need("folding", devices=spec.devices)
