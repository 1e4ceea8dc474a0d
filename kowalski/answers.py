"""A task's end as a program sees it: a value of the type it asked for, or an error."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from kowalski.errors import (
    AnswerMisfit,
    ConfigError,
    ExecutionError,
    RLMError,
    TaskCancelled,
    of_code,
)
from kowalski.results import ExecutionResult, Json


@lru_cache(maxsize=64)
def _adapter(answer_type: Any) -> TypeAdapter[Any]:
    return TypeAdapter(answer_type)


def schema_of(answer_type: Any) -> Json:
    try:
        return _adapter(answer_type).json_schema()
    except Exception as error:
        raise ConfigError(f"answer_type {answer_type!r}: {error}") from error


def valued(result: ExecutionResult[str], answer_type: Any) -> ExecutionResult[Any]:
    if answer_type is None:
        return result
    try:
        value = _adapter(answer_type).validate_json(result.text)
    except ValidationError as error:
        # Of the schema it is; a type may ask for more than its schema can say.
        misfit = AnswerMisfit(str(error), code="bad_answer")
        misfit.result = cast("ExecutionResult[object]", result)
        raise misfit from error
    return replace(result, value=value)


def failure_of(result: ExecutionResult[str]) -> ExecutionError:
    """The error that stands for a task that ended without an answer."""
    code, _, words = result.reservation.partition(": ")
    if result.state == "cancelled":
        error: RLMError = TaskCancelled(result.reservation or "cancelled", code="cancelled")
    else:
        error = of_code(code, words or result.reservation or result.state)
    if not isinstance(error, ExecutionError):
        error = ExecutionError(result.reservation, code=code)
    error.result = cast("ExecutionResult[object]", result)
    return error
