"""The test double keeps its own promises: scripts, directives, exact counts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from kowalski.node.backends.http import open_http
from kowalski.node.backends.seam import Completed, CompletionRequest, Delta
from kowalski.protocol.messages.inference import ChatMessage
from tests.node.backends.asking import ask, openai_at, question
from tests.scripted_model_server import Act, Call, Script, open_scripted_server

ROOT = Path(__file__).resolve().parents[3]


def text_of(events: list[object]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def root_call(*roles: str) -> CompletionRequest:
    messages = tuple(
        ChatMessage.model_validate({"role": role, "content": f"a {role}"})
        for role in ("system", "user", *roles)
    )
    return CompletionRequest("scripted", messages)


@pytest.mark.trio
async def test_root_calls_get_the_script_in_order_and_others_do_not_count() -> None:
    script = Script(root=("first", "second"), by_substring={"sub": "for sub"}, otherwise="else")
    async with open_scripted_server(script) as server, open_http() as http:
        backend = openai_at(server.url, http)
        asked = [root_call(), question("a sub call"), question(), root_call(), root_call()]
        answers = [text_of([*await ask(backend, request)]) for request in asked]
    assert answers == ["first", "for sub", "else", "second", "second"]
    assert (server.stats.calls, server.stats.root_calls) == (5, 3)


@pytest.mark.trio
async def test_a_script_may_count_the_turns_of_a_conversation_instead() -> None:
    script = Script(root=("first", "second"), counts_turns=True)
    async with open_scripted_server(script) as server, open_http() as http:
        backend = openai_at(server.url, http)
        asked = [root_call("assistant", "user"), root_call(), root_call("assistant", "user")]
        answers = [text_of([*await ask(backend, request)]) for request in asked]
    assert answers == ["second", "first", "second"]


@pytest.mark.trio
async def test_a_function_answers_and_directives_in_the_prompt_win() -> None:
    def by_length(call: Call) -> str | None:
        return str(len(call.last)) if call.number == 0 else None

    async with open_scripted_server(Script(function=by_length)) as server, open_http() as http:
        backend = openai_at(server.url, http)
        asked = ["four", "four", "x\nECHO: hello  there\ny", "TOKENS: 3"]
        answers = [text_of([*await ask(backend, question(text))]) for text in asked]
    assert answers == ["4", "ok", "hello  there", "w0 w1 w2"]


@pytest.mark.trio
async def test_slots_are_waited_for_and_stats_are_exact() -> None:
    script = Script(otherwise=Act("a b c", delay_per_token_s=0.02))
    async with open_scripted_server(script, slots=1) as server, open_http() as http:
        backend = openai_at(server.url, http)
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask, backend, question("one two"))
        elapsed_s = trio.current_time() - start
        stats = json.loads((await http.fetch(f"{server.url}/stats", timeout_s=2)).body)
    assert elapsed_s >= 9 * 0.02
    expected = {"calls": 3, "completed": 3, "prompt_tokens": 6, "completion_tokens": 9}
    assert {name: stats[name] for name in expected} == expected
    assert stats["in_flight_max"] == 3


@pytest.mark.trio
async def test_it_runs_as_a_process_of_its_own(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"otherwise": {"text": "from a file"}}))
    command = [sys.executable, "-m", "tests.scripted_model_server", "--script", str(script)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            line = await trio.to_thread.run_sync(process.stdout.readline)
            async with open_http() as http:
                events = await ask(openai_at(json.loads(line)["url"], http), question())
        finally:
            process.kill()
    assert text_of([*events]) == "from a file"
    assert isinstance(events[-1], Completed)
