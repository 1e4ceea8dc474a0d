"""An agent mesh on the devices people own.

For programs: `from kowalski import Kowalski`, see docs/how-to/from-python.md. The names are loaded
when they are first used, so that commands which need none of them start fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kowalski.batches import Task as Task
    from kowalski.builder import Builder as Builder
    from kowalski.client import Kowalski as Kowalski
    from kowalski.cluster import ClusterConfig as ClusterConfig
    from kowalski.cluster import DeviceFilter as DeviceFilter
    from kowalski.cluster import FailoverStrategy as FailoverStrategy
    from kowalski.cluster import RetryPolicy as RetryPolicy
    from kowalski.cluster import ShardingStrategy as ShardingStrategy
    from kowalski.errors import RLMError as RLMError
    from kowalski.results import ExecutionMetrics as ExecutionMetrics
    from kowalski.results import ExecutionResult as ExecutionResult
    from kowalski.results import ProgressUpdate as ProgressUpdate

__version__ = "0.1.0"

_PLACES = {
    "Builder": "builder",
    "ClusterConfig": "cluster",
    "DeviceFilter": "cluster",
    "ExecutionMetrics": "results",
    "ExecutionResult": "results",
    "FailoverStrategy": "cluster",
    "Kowalski": "client",
    "ProgressUpdate": "results",
    "RLMError": "errors",
    "RetryPolicy": "cluster",
    "ShardingStrategy": "cluster",
    "Task": "batches",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"kowalski.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
