"""What nodes log is not kept; but one that logs an exception has met a bug of its own."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog

from simulations.witness import Witness


@contextmanager
def told_to(witness: Witness) -> Iterator[None]:
    """Within the block, whatever a node logs with a traceback breaks `no_bug_is_met`."""

    def hear(_logger: object, _level: str, event: MutableMapping[str, Any]) -> str:
        error = _error_of(event.get("exc_info"))
        if error is not None:
            words = "".join(traceback.format_exception(error, limit=-6))
            where = f"node {event.get('node')}: {event.get('event')}"
            witness.check("no_bug_is_met", holds=False, words=f"{where}: {words}")
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, hear],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
    )
    try:
        yield
        witness.check("no_bug_is_met", holds=True, words="")
    finally:
        structlog.configure(**before)


def _error_of(exc_info: object) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        error = exc_info[1]
        return error if isinstance(error, BaseException) else None
    return sys.exc_info()[1] if exc_info else None
