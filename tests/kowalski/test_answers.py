"""A task's end as a value or an error."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import AfterValidator, BaseModel

from kowalski import errors
from kowalski.answers import failure_of, schema_of, valued
from kowalski.results import ExecutionResult, result_of


def ended(state: str = "answered", answer: str = "", reason: str = "") -> ExecutionResult[str]:
    done = {"task": "t", "state": state, "answer": answer, "reason": reason, "mode": "rlm"}
    return result_of(done, 0.0)


class City(BaseModel):
    name: str
    inhabitants: int


def _even(number: int) -> int:
    if number % 2:
        raise ValueError("odd")
    return number


def test_an_answer_becomes_an_instance_of_the_type() -> None:
    text = '{"name": "Oslo", "inhabitants": 700000}'
    assert valued(ended(answer=text), City).value == City(name="Oslo", inhabitants=700_000)
    assert valued(ended(answer="[1, 2]"), list[int]).value == [1, 2]
    assert valued(ended(answer="plain"), None).value == "plain"
    assert schema_of(City)["required"] == ["name", "inhabitants"]


def test_what_the_schema_could_not_say_is_a_misfit_with_the_raw_answer() -> None:
    with pytest.raises(errors.AnswerMisfit, match="odd") as misfit:
        valued(ended(answer="3"), Annotated[int, AfterValidator(_even)])
    assert misfit.value.result is not None
    assert misfit.value.result.text == "3"


def test_a_type_without_a_schema_is_the_callers_mistake() -> None:
    with pytest.raises(errors.ConfigError, match="answer_type"):
        schema_of(object())


@pytest.mark.parametrize(
    ("result", "kind", "words"),
    [
        (ended("failed", reason="no_model: nobody"), errors.NoDevicesAvailable, "nobody"),
        (ended("failed", reason="calls: 3 are used up"), errors.BudgetSpent, "3 are used up"),
        (ended("failed", reason="bad_answer: /a"), errors.AnswerMisfit, "/a"),
        (ended("failed", reason="peers_failed: a: gone"), errors.DeviceFailed, "a: gone"),
        (ended("failed", reason="usage: odd"), errors.ExecutionError, "usage: odd"),
        (ended("failed"), errors.ExecutionError, "failed"),
        (ended("cancelled", "half", "cancelled: enough"), errors.TaskCancelled, "enough"),
    ],
)
def test_an_end_without_an_answer_is_an_error_that_has_the_result(
    result: ExecutionResult[str], kind: type[errors.ExecutionError], words: str
) -> None:
    error = failure_of(result)
    assert type(error) is kind
    assert words in str(error)
    assert error.result == result
