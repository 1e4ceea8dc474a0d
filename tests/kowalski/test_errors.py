"""A node's codes as errors that a program can tell from each other."""

from __future__ import annotations

import pytest

from kowalski import errors
from kowalski.protocol.errors import ConfigError as ProjectConfigError
from kowalski.protocol.errors import KowalskiError


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("no_model", errors.NoDevicesAvailable),
        ("no_peer", errors.NoDevicesAvailable),
        ("unsupported", errors.NoDevicesAvailable),
        ("calls", errors.BudgetSpent),
        ("timeout", errors.BudgetSpent),
        ("usage", errors.ConfigError),
        ("unreachable", errors.NetworkError),
        ("peers_failed", errors.DeviceFailed),
        ("cancelled", errors.TaskCancelled),
        ("bad_answer", errors.AnswerMisfit),
        ("no_answer", errors.ExecutionError),
        ("anything new", errors.ExecutionError),
    ],
)
def test_each_code_has_its_error(code: str, kind: type[errors.RLMError]) -> None:
    error = errors.of_code(code, "words")
    assert type(error) is kind
    assert (str(error), error.code) == ("words", code)


def test_whoever_catches_the_roots_catches_all() -> None:
    named = [one for one in vars(errors).values() if isinstance(one, type)]
    ours = [one for one in named if issubclass(one, errors.RLMError)]
    assert len(ours) >= 14
    assert all(issubclass(one, KowalskiError) for one in ours)
    assert issubclass(errors.ConfigError, ProjectConfigError)
    for kind in (errors.TaskCancelled, errors.BudgetSpent, errors.NoDevicesAvailable):
        assert issubclass(kind, errors.ExecutionError)
