"""exo through its HTTP interface."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from kowalski.node.backends.exo import list_exo
from kowalski.node.backends.openai_models import OpenAiServer
from kowalski.node.backends.seam import BackendError, ModelInfo

SERVER = OpenAiServer("exo", "http://h", "http://h/v1")
STATE: dict[str, Any] = json.loads(
    (Path(__file__).parent / "recordings" / "exo-state.json").read_text()
)
READY = ModelInfo(
    "mlx-community/Llama-3.2-1B-Instruct-4bit",
    131072,
    is_warm=True,
    size_bytes=729808896,
    capabilities=("chat", "tools"),
)


@pytest.mark.parametrize("has_paths", [True, False])
def test_what_is_ready_can_be_run_whether_the_state_comes_in_pieces_or_whole(
    has_paths: bool,
) -> None:
    async def get(url: str) -> object:
        await trio.lowlevel.checkpoint()
        path = url.removeprefix("http://h")
        if path == "/state":
            return STATE
        if has_paths and path.startswith("/state/"):
            return STATE[path.removeprefix("/state/")]
        raise BackendError("model_missing", "HTTP 404")

    assert trio.run(list_exo, get, SERVER) == (READY,)
