"""A node of a program's own, as a real process, with a real sandbox and a scripted model server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import trio

from kowalski import ClusterConfig, DeviceFilter, ExecutionResult, Kowalski, Task, errors
from tests.scripted_model_server import Call, Script, open_scripted_server

pytestmark = [pytest.mark.real, pytest.mark.trio]

LOCAL = ClusterConfig(device_filter=DeviceFilter.LOCAL)


def reading(call: Call) -> str:
    """Solves `needle` as a model would: looks, asks for each part, answers."""
    if "needle" not in call.prompt:
        return "the block said 42" if "\n42\n" in call.prompt else "said"
    if "part:" in call.last:
        return "4711" if "4711" in call.last else "nothing"
    if "Output of" in call.last:
        return "```python\nFINAL(found[0])\n```"
    return (
        "```python\n"
        "parts = [context[i : i + 50_000] for i in range(0, len(context), 50_000)]\n"
        "replies = llm_query_batched([f'needle part: {part}' for part in parts])\n"
        "found = [one for one in replies if one != 'nothing']\n"
        "print(len(parts), found)\n"
        "```"
    )


async def test_a_program_alone_on_a_device_has_all_of_it(tmp_path: Path) -> None:
    async with open_scripted_server(Script(function=reading)) as server:
        builder = Kowalski.builder().with_own_node("--backend", server.url).with_cluster(LOCAL)
        async with builder.with_node(tmp_path / "node").build() as k:
            hay = "nothing here\n" * 20_000 + "the needle is 4711\n" + "nor here\n" * 20_000
            result = await k.execute("Find the needle", context=hay, mode="rlm", timeout_s=120.0)
            assert result.text == "4711"
            assert result.metrics.calls == result.metrics.attempts == server.stats.calls
            assert result.metrics.sub_calls == len(hay) // 50_000 + 1
            assert {one.name for one in result.work} == {(await k.devices())[0].name}

            assert (await k.ask("hello")).text == "said"
            assert (await k.run("python", "print(6 * 7)", check=True)).stdout == "42\n"
            with pytest.raises(errors.REPLTimeout):
                await k.run("python", "while True: pass", timeout_s=1.0, check=True)
            with pytest.raises(errors.ConfigError, match="unknown language"):
                await k.run("cobol", "")
            folded = await k.fold("one two three. " * 500, budget_tokens=100)
            assert folded.tokens <= 100 < folded.source_tokens

            blocks = Task("```python\nprint(6 * 7)\n```", mode="blocks")
            first, second, third = await k.execute_batch(
                ["a", blocks, Task("b", model="none such")]
            )
            assert isinstance(first, ExecutionResult)
            assert isinstance(second, ExecutionResult)
            assert "42" in second.text
            assert isinstance(third, errors.NoDevicesAvailable)
    with pytest.raises(errors.NetworkError):
        await Kowalski.builder().with_node(tmp_path / "node").build()


async def test_a_task_is_stopped_and_its_partial_answer_kept(tmp_path: Path) -> None:
    cell = "answer['content'] = 'half'\nimport time\ntime.sleep(120)"
    builder = Kowalski.builder().with_own_node().with_node(tmp_path / "node")
    async with builder.build() as k, trio.open_nursery() as nursery:
        caught: list[errors.TaskCancelled] = []

        async def work() -> None:
            try:
                await k.execute(f"```python\n{cell}\n```", "slow", mode="blocks")
            except errors.TaskCancelled as cancelled:
                caught.append(cancelled)

        async with k.subscribe_to_progress("slow") as updates:
            nursery.start_soon(work)
            async for update in updates:
                if update.kind == "cell":
                    break
        await k.cancel_task("slow")
        with trio.fail_after(30):
            while not caught:  # noqa: ASYNC110 the task's end has no event here
                await trio.sleep(0.01)
        assert caught[0].result is not None
        assert caught[0].result.state == "cancelled"


PROGRAM = """
import sys, time
from kowalski.sync import Kowalski
with Kowalski.builder().with_own_node("--no-repl").with_node(sys.argv[1]).build():
    print("up", flush=True)
    time.sleep(600)
"""


async def test_a_node_of_a_program_that_is_killed_stops_too(tmp_path: Path) -> None:
    data_dir = tmp_path / "node"
    command = [sys.executable, "-c", PROGRAM, str(data_dir)]
    program = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    try:
        assert program.stdout is not None
        assert (await program.stdout.receive_some()).startswith(b"up")
        (node,) = psutil.Process(program.pid).children()
    finally:
        program.kill()
        await program.wait()
    with trio.fail_after(60):
        await trio.to_thread.run_sync(node.wait)
    assert "belongs to is gone" in (data_dir / "node.log").read_text()


async def test_a_node_that_does_not_come_up_tells_why(tmp_path: Path) -> None:
    builder = Kowalski.builder().with_own_node("--roles", "dance").with_node(tmp_path / "node")
    with pytest.raises(errors.NetworkError, match="roles"):
        await builder.build()
