"""Clients of other people, unmodified, at a node that has no model itself but a peer that does.

Those from PyPI and those from npm must get the same.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
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
from tests.integration.npm import install

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


@pytest.fixture(scope="session")
def npm() -> str:
    """The interpreter that has those of npm."""
    if why_not := install(FOLDER):
        pytest.skip(why_not)
    return "node"


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


Told = Callable[[str, str], dict[str, Any]]
"""What a client, by its name, gets from an address or a command."""


def run(argv: list[str], home: Path) -> dict[str, Any]:
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=CLIENT_S,
        env=clean_environment(home),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.fixture
def from_pypi(python: Path, tmp_path: Path) -> Told:
    program = [str(python), str(FOLDER / "clients.py")]
    return lambda client, argument: run([*program, client, argument], tmp_path)


@pytest.fixture
def from_npm(npm: str, tmp_path: Path) -> Told:
    program = [npm, str(FOLDER / "clients.mjs")]
    return lambda client, argument: run([*program, client, argument], tmp_path)


@pytest.fixture(params=["from_pypi", "from_npm"])
def told(request: pytest.FixtureRequest) -> Told:
    """By the client of each language."""
    chosen: Told = request.getfixturevalue(request.param)
    return chosen


CALL = ["look", {"where": "here"}]


def test_openai_chats_streams_embeds_and_hears_errors(
    told: Told, mesh: tuple[str, list[str]]
) -> None:
    assert told("openai_sync", mesh[0]) == {
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
    told: Told, mesh: tuple[str, list[str]]
) -> None:
    assert told("openai_async", mesh[0]) == {
        "call": CALL,
        "finish": "tool_calls",
        "streamed": CALL[1],
        "answered": "seen",
        "many": [str(number) for number in range(16)],
    }


def test_openai_asks_for_responses(told: Told, mesh: tuple[str, list[str]]) -> None:
    assert told("openai_responses", mesh[0]) == {
        "text": "hello there",
        "usage": [5, 2],
        "streamed": "w0 w1 w2",
        "whole": "w0 w1 w2",
        "first_and_last": ["response.created", "response.completed"],
        "call": CALL,
        "heard": True,
        "answered": "seen",
        "error": "previous_response_id",
    }


def test_ollamas_client(told: Told, mesh: tuple[str, list[str]]) -> None:
    assert told("ollama", mesh[0]) == {
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


def test_anthropics_client(told: Told, mesh: tuple[str, list[str]]) -> None:
    said = told("anthropic", mesh[0])
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


def test_an_agent_speaks_mcp_over_http(told: Told, mesh: tuple[str, list[str]]) -> None:
    assert told("mcp", mesh[0]) == {
        "tools": ["submit", "run", "ask", "fold"],
        "ran": "42",
        "failed": True,
        "asked": "hello",
        "done": ["answered", 1],
        "heard": True,
    }


def test_an_agent_speaks_mcp_to_a_command(from_pypi: Told, mesh: tuple[str, list[str]]) -> None:
    said = from_pypi("mcp_stdio", json.dumps(mesh[1]))
    assert said == {"tools": ["submit", "run", "ask", "fold"], "ran": "42"}


def test_an_agent_speaks_a2a(from_pypi: Told, mesh: tuple[str, list[str]]) -> None:
    assert from_pypi("a2a", mesh[0]) == {
        "name": "kowalski mesh",
        "last": "TASK_STATE_COMPLETED",
        "found": "TASK_STATE_COMPLETED",
        "answer": "hello",
    }


@pytest.fixture
def curl(mesh: tuple[str, list[str]]) -> Callable[..., str]:
    """What curl prints of an answer to a chat, and the status behind it."""
    program = shutil.which("curl")
    if program is None:
        pytest.skip("no curl here")
    url = f"{mesh[0]}/v1/chat/completions"
    argv = [program, "-sN", "--max-time", "30", "-w", "%{http_code}", url]

    def ask(*arguments: str, **body: object) -> str:
        done = subprocess.run(
            [*argv, *arguments, "-d", "@-"],
            input=json.dumps({"model": "m", **body}),
            capture_output=True,
            text=True,
            timeout=CLIENT_S,
            check=True,
        )
        return done.stdout

    return ask


def test_curl_gets_answers_streams_and_errors(curl: Callable[..., str]) -> None:
    as_json = ("-H", "Content-Type: application/json")
    hello, three = ([{"role": "user", "content": text}] for text in ("ECHO: hello", "TOKENS: 3"))
    whole = curl(*as_json, messages=hello)
    assert whole.endswith("200")
    assert json.loads(whole[:-3])["choices"][0]["message"]["content"] == "hello"
    # As curl sends it that is told nothing of its body's form.
    assert curl(messages=hello).endswith("200")
    *events, status = curl(*as_json, messages=three, stream=True).split("\n\n")
    assert [event.partition(": ")[0] for event in events] == ["data"] * len(events)
    assert (events[-1], status) == ("data: [DONE]", "200")
    wrong = curl(*as_json, messages="hello")
    assert wrong.endswith("400")
    assert "messages" in json.loads(wrong[:-3])["error"]["message"]
    long = {"role": "system", "content": "x" * 700_000}
    assert curl(*as_json, messages=[long, *hello]).endswith("200")
    # From 1 MB on, curl sends no body before the server's "100 Continue".
    too_large = curl(*as_json, messages=[long, long, *hello])
    assert too_large.endswith("413")
    assert "does not fit" in json.loads(too_large[:-3])["error"]["message"]
