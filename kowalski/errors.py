"""What can go wrong for a program that uses the mesh; everything here is an `RLMError`.

The names are those of the design that this project follows. What a node says as a code, `of_code`
makes one of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kowalski.protocol import errors as of_project

if TYPE_CHECKING:
    from kowalski.results import ExecutionResult


class RLMError(of_project.KowalskiError):
    """The root. `code` is the node's word for it, empty where no node said it."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class ExecutionError(RLMError):
    """A task ended without an answer. `result` has what there is, partial answer included."""

    result: ExecutionResult[object] | None = None


class TaskCancelled(ExecutionError):  # noqa: N818 the names of the design
    """Somebody stopped it, here or on another device; `result.text` is the partial answer."""


class BudgetSpent(ExecutionError):  # noqa: N818
    """Calls, tokens or time that the task was given are used up; `code` says which."""


class AnswerMisfit(ExecutionError):  # noqa: N818
    """No answer fitted the schema; `result.text` is the last one, raw."""


class NoDevicesAvailable(ExecutionError):  # noqa: N818
    """No device of the mesh can do it: none has the model, the language or the room."""


class DeviceFailed(ExecutionError):  # noqa: N818
    """Every device that was tried failed; the message says which, and how."""


class DeviceNotFound(RLMError):  # noqa: N818
    """No device of the mesh is called so, or several are."""


class NetworkError(RLMError):
    """No node runs here, it went away, or it could not reach another."""


class DiscoveryTimeout(RLMError):  # noqa: N818
    """Not as many devices as wanted were there in time."""


class REPLError(RLMError):
    """A program died, was stopped, or ended with an error that was to be checked."""


class REPLTimeout(REPLError):  # noqa: N818
    """A program ran for longer than it may."""


class ContextFoldingError(RLMError):
    """A text could not be folded."""


class ConfigError(RLMError, of_project.ConfigError):
    """A wrong argument or setting; nothing was sent to any other device."""


_NOBODY = frozenset(
    {
        "no_peer",
        "no_capacity",
        "no_language",
        "no_model",
        "no_coordinator",
        "no_blocks",
        "unsupported",
        "busy",
        "paused",
        "draining",
    }
)
_SPENT = frozenset({"calls", "tokens", "timeout", "budget_spent", "window"})
_FAULTS = frozenset({"usage", "bad_request", "bad_schema", "unknown_verb", "too_long"})
_WEATHER = frozenset({"unreachable", "not_running", "gone"})
_BROKEN = frozenset({"peers_failed", "model_failed", "lost", "sandbox", "cut_short"})


def of_code(code: str, message: str) -> RLMError:
    """The error that a node's `code` stands for, an `ExecutionError` if none of the others."""
    kinds: tuple[tuple[frozenset[str], type[RLMError]], ...] = (
        (_NOBODY, NoDevicesAvailable),
        (_SPENT, BudgetSpent),
        (_FAULTS, ConfigError),
        (_WEATHER, NetworkError),
        (_BROKEN, DeviceFailed),
        (frozenset({"cancelled"}), TaskCancelled),
        (frozenset({"bad_answer"}), AnswerMisfit),
    )
    kind = next((kind for codes, kind in kinds if code in codes), ExecutionError)
    return kind(message, code=code)
