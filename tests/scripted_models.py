"""Ollama's ways with models, for `scripted_model_server`: any name can be pulled, in four steps.

A name with `missing` in it is missing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol


class HasModels(Protocol):
    models: tuple[str, ...]


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes


def manage(server: HasModels, path: str, body: dict[str, Any]) -> Reply:
    """What is answered to `/api/show`, `/api/pull` and `/api/delete`; the last two are done."""
    model = body.get("model", "")
    match path:
        case "/api/show":
            return _reply({"model_info": {"llama.context_length": 32768}})
        case "/api/pull":
            if "missing" not in model:
                server.models = (*server.models, model)
            return Reply(200, b"".join(pull_lines(model)))
        case "/api/delete":
            server.models = tuple(name for name in server.models if name != model)
            return Reply(200, b"")
        case _:
            return Reply(404, json.dumps({"error": f"no route {path}"}).encode())


def pull_lines(model: str) -> list[bytes]:
    """What Ollama says while it fetches a model of two gigabytes."""
    layer = {"status": "pulling 970aa74c0a90", "digest": "sha256:970aa74c0a90", "total": 2 * 10**9}
    steps: list[dict[str, object]] = [
        {"status": "pulling manifest"},
        {**layer, "completed": 10**9},
        {"status": "verifying sha256 digest"},
        {"status": "success"},
    ]
    if "missing" in model:
        steps[1:] = [{"error": "pull model manifest: file does not exist"}]
    return [json.dumps(step).encode() + b"\n" for step in steps]


def _reply(value: object) -> Reply:
    return Reply(200, json.dumps(value).encode())
