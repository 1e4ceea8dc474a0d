"""Clients of other people, unmodified, at a node that has no model itself but a peer that does."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cluster import (
    ROOT,
    START_S,
    clean_environment,
    open_cluster,
    open_model_server,
    wait_until,
)

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

FOLDER = Path(__file__).parent / "foreign"
ENVIRONMENT = ROOT / "build" / "foreign-clients"
CLIENT_S = 120


@pytest.fixture(scope="session")
def python() -> Path:
    """An interpreter that has the clients, made once and again when their list changes."""
    wanted = (FOLDER / "requirements.txt").read_text()
    stamp = ENVIRONMENT / "made-of.txt"
    interpreter = ENVIRONMENT / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != wanted:
        uv = str(Path(sys.executable).with_name("uv"))
        make = [uv, "venv", "-q", "--clear", "--python", sys.executable, str(ENVIRONMENT)]
        subprocess.run(make, check=True, timeout=CLIENT_S)
        requirements = str(FOLDER / "requirements.txt")
        install = [uv, "pip", "install", "-q", "--python", str(interpreter), "-r", requirements]
        subprocess.run(install, check=True, timeout=CLIENT_S)
        stamp.write_text(wanted)
    return interpreter


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """The address of a node, and the command that speaks MCP for it."""
    folder = tmp_path_factory.mktemp("clients")
    with contextlib.ExitStack() as stack:
        models = stack.enter_context(open_model_server(folder, "--model", "m", "--slots", "16"))
        cluster = stack.enter_context(open_cluster(folder))
        door = cluster.start("door", "--roles", "submit,coordinate,repl,fold", "--no-mdns")
        door.wait_until_up(START_S)
        backend = ("--backend", models.url, "--roles", "infer")
        cluster.start("thinker", "--join", door.invite(uses=1), "--no-mdns", *backend)
        cluster.wait_until_met(START_S)
        port = door.ask("status")["http_port"]

        def has_model() -> bool:
            rows = door.ask("peers")["peers"]
            assert isinstance(rows, list)
            return any("m" in row["models"] for row in rows)

        wait_until(has_model, "the model is known")
        speak = [*cluster.program, "mcp", "--data-dir", str(door.data_dir)]
        yield f"http://127.0.0.1:{port}", speak


def told(python: Path, home: Path, client: str, argument: str) -> dict[str, Any]:
    done = subprocess.run(
        [str(python), str(FOLDER / "clients.py"), client, argument],
        capture_output=True,
        text=True,
        timeout=CLIENT_S,
        env=clean_environment(home),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


CALL = ["look", {"where": "here"}]


def test_openai_chats_streams_embeds_and_hears_errors(
    python: Path, mesh: tuple[str, list[str]], tmp_path: Path
) -> None:
    assert told(python, tmp_path, "openai_sync", mesh[0]) == {
        "text": "hello there",
        "usage": [3, 2],
        "streamed": "w0 w1 w2",
        "finish": "stop",
        "stream_usage": 3,
        "models": ["m"],
        "embedding": [1.0, 1.0, 0.0],
        "error": "model_not_found",
    }


def test_openai_async_calls_tools_and_asks_many_at_a_time(
    python: Path, mesh: tuple[str, list[str]], tmp_path: Path
) -> None:
    assert told(python, tmp_path, "openai_async", mesh[0]) == {
        "call": CALL,
        "finish": "tool_calls",
        "streamed": CALL[1],
        "answered": "seen",
        "many": [str(number) for number in range(16)],
    }


def test_ollamas_client(python: Path, mesh: tuple[str, list[str]], tmp_path: Path) -> None:
    assert told(python, tmp_path, "ollama", mesh[0]) == {
        "text": "hello there",
        "streamed": "w0 w1 w2",
        "generated": "once",
        "models": ["m:latest"],
        "loaded": ["m:latest"],
        "call": [CALL],
        "embedding": [1.0, 1.0, 0.0],
        "shown": "m",
        "status": 404,
    }


def test_anthropics_client(python: Path, mesh: tuple[str, list[str]], tmp_path: Path) -> None:
    said = told(python, tmp_path, "anthropic", mesh[0])
    assert said.pop("counted") >= 1
    assert said == {
        "text": "hello there",
        "stop": "end_turn",
        "streamed": "w0 w1 w2",
        "usage": 3,
        "call": [CALL],
        "call_stop": "tool_use",
        "models": ["m"],
        "error": "not_found_error",
    }


def test_an_agent_speaks_mcp_over_http(
    python: Path, mesh: tuple[str, list[str]], tmp_path: Path
) -> None:
    assert told(python, tmp_path, "mcp", mesh[0]) == {
        "tools": ["submit", "run", "ask", "fold"],
        "ran": "42",
        "failed": True,
        "asked": "hello",
        "done": ["answered", 1],
        "heard": True,
    }


def test_an_agent_speaks_mcp_to_a_command(
    python: Path, mesh: tuple[str, list[str]], tmp_path: Path
) -> None:
    said = told(python, tmp_path, "mcp_stdio", json.dumps(mesh[1]))
    assert said == {"tools": ["submit", "run", "ask", "fold"], "ran": "42"}


def test_an_agent_speaks_a2a(python: Path, mesh: tuple[str, list[str]], tmp_path: Path) -> None:
    assert told(python, tmp_path, "a2a", mesh[0]) == {
        "name": "kowalski mesh",
        "last": "TASK_STATE_COMPLETED",
        "found": "TASK_STATE_COMPLETED",
        "answer": "hello",
    }
