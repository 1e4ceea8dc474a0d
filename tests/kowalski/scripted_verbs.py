"""A control socket, the real one, whose verbs do what a test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from kowalski.node.control import Verb, serve_control

Reply = dict[str, object]


@asynccontextmanager
async def open_verbs(path: Path, verbs: Mapping[str, Verb]) -> AsyncIterator[Path]:
    """Serve `verbs` at `path` until the block is left."""
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda **more: serve_control(path, verbs, **more))  # type: ignore[arg-type]
        yield path
        nursery.cancel_scope.cancel()


def peer(name: str, **changed: object) -> Reply:
    """A row of `peers`."""
    row: Reply = {
        "peer": f"id-of-{name}",
        "name": name,
        "is_self": False,
        "routable": True,
        "load": 0.0,
        "rtt_ms": None,
        "languages": {"python": "3.12"},
        "models": [],
        "roles": ["repl", "infer"],
    }
    return {**row, **changed}


def ended(task: str, answer: str = "ok", state: str = "answered", reason: str = "") -> Reply:
    """The node's last word on a task."""
    return {
        "task": task,
        "state": state,
        "answer": answer,
        "reason": reason,
        "score": None,
        "mode": "direct",
        "term": 1,
        "coordinator_name": "desk",
        "stats": {"calls": 1},
        "ran": [],
        "files": [],
    }
