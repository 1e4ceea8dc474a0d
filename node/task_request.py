"""What somebody on this device asks of a task, as the spec that the mesh keeps of it."""

from __future__ import annotations

from kowalski.node.control_messages import SubmitRequest
from kowalski.protocol.errors import ConfigError
from kowalski.protocol.limits import INPUTS_MAX, PROMPT_BYTES_MAX, SCHEMA_BYTES_MAX
from kowalski.protocol.messages.repl import Inputs
from kowalski.protocol.messages.task import (
    Asking,
    Budget,
    Quality,
    RetryPolicy,
    Shape,
    TaskSpec,
)
from kowalski.rlm.schemas import SchemaError, check_schema

ITERATIONS_BLOCKS = 5
ITERATIONS_RLM = 30
NAME_CHARS_MAX = 128


def check(request: SubmitRequest) -> None:
    """Return if a spec can be made of it.

    Raises:
        ConfigError: a prompt, file name or schema is too long, or the schema is none.
    """
    size = len(request.prompt.encode())
    if size > PROMPT_BYTES_MAX:
        raise ConfigError(
            f"a prompt of {size} bytes; at most {PROMPT_BYTES_MAX}: give long text as --context"
        )
    if len(request.context) > INPUTS_MAX:
        raise ConfigError(f"{len(request.context)} context files; at most {INPUTS_MAX}")
    names = [one.name for one in request.context]
    if long := next((name for name in names if len(name) > NAME_CHARS_MAX), None):
        raise ConfigError(f"context file {long[:20]}...: a name of over {NAME_CHARS_MAX}")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"two context files are named {twice}")
    if request.json_schema is not None:
        size = len(request.json_schema.encode())
        if size > SCHEMA_BYTES_MAX:
            raise ConfigError(f"a schema of {size} bytes; at most {SCHEMA_BYTES_MAX}")
        try:
            check_schema(request.json_schema)
        except SchemaError as wrong:
            raise ConfigError(f"json_schema: {wrong}") from wrong


def spec_of(request: SubmitRequest, inputs: Inputs) -> TaskSpec:
    """The spec of a request that was checked; `inputs` are its context files, kept by hash."""
    iterations = ITERATIONS_BLOCKS if request.mode == "blocks" else ITERATIONS_RLM
    return TaskSpec(
        prompt=request.prompt,
        mode=request.mode,
        model=request.model,
        inputs=inputs,
        max_iterations=request.max_iterations or iterations,
        cell_timeout_s=request.cell_timeout_s,
        timeout_s=request.timeout_s,
        seed=request.seed,
        priority=request.priority,
        failover=request.failover,
        retry=RetryPolicy(
            retries_max=request.retries_max,
            delay_s=request.retry_delay_s,
            is_exponential=request.retry_is_exponential,
        ),
        submitter_gone=request.submitter_gone,
        side_effects=request.side_effects,
        devices=request.devices,
        budget=Budget(calls=request.calls_max, tokens=request.tokens_max, depth=request.depth),
        quality=_quality(request),
        shape=_shape(request),
        asking=Asking(
            drafts=request.drafts,
            sub_model=request.sub_model,
            temperature=request.temperature,
            reply_tokens=request.reply_tokens,
            answers_once=request.answers_once,
        ),
        window_tokens=request.window_tokens,
        output_chars=request.output_chars,
    )


def _quality(request: SubmitRequest) -> Quality | None:
    if request.quality is None:
        return None
    return Quality(
        threshold=request.quality,
        patience=request.quality_patience,
        model=request.quality_model,
    )


def _shape(request: SubmitRequest) -> Shape | None:
    if request.json_schema is None:
        return None
    return Shape(json_schema=request.json_schema, tries=request.schema_tries)
