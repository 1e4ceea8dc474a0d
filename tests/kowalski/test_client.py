"""A program's requests, against a control socket whose verbs are scripted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from kowalski import Kowalski, ProgressUpdate, errors
from kowalski.builder import Settings
from kowalski.cluster import ClusterConfig, DeviceFilter, FailoverStrategy, RetryPolicy
from kowalski.node.control import Emit, Verb
from kowalski.node.control_messages import parse_request
from kowalski.node_link import NodeLink
from kowalski.protocol.errors import RequestRefusedError
from tests.kowalski.scripted_verbs import Reply, ended, open_verbs, peer

pytestmark = pytest.mark.trio


class Node:
    """What was asked of it, each request checked as a node would."""

    def __init__(self, **verbs: Verb) -> None:
        self.asked: list[tuple[str, Reply]] = []
        self.verbs: Mapping[str, Verb] = {name: self._checked(name) for name in verbs}
        self._do = verbs

    def _checked(self, name: str) -> Verb:
        async def verb(request: Reply, emit: Emit) -> Reply:
            parse_request(name, request)
            self.asked.append((name, request))
            return await self._do[name](request, emit)

        return verb


@asynccontextmanager
async def client(
    tmp_path: Path, node: Node, settings: Settings | None = None
) -> AsyncIterator[Kowalski]:
    async with open_verbs(tmp_path / "s", node.verbs) as path:
        yield Kowalski(NodeLink(path), settings or Settings())


async def answer(request: Reply, emit: Emit) -> Reply:
    await emit({"kind": "submitted", "task": request.get("task_id", "t1"), "mode": "rlm"})
    await emit({"kind": "call", "model": "m", "peer": "p", "name": "gpu"})
    await emit({"kind": "turn", "n": 1})
    return ended("t1", "42")


async def test_a_task_carries_what_the_builder_was_told_and_what_the_call_says(
    tmp_path: Path,
) -> None:
    cluster = ClusterConfig(
        device_filter=DeviceFilter.NETWORK,
        failover_strategy=FailoverStrategy.QUEUE,
        network_retry_policy=RetryPolicy(3, 0.5, exponential_backoff=False),
    )
    settings = Settings(model="m", cluster=cluster, options={"calls_max": 9, "depth": 2})
    node = Node(submit=answer)
    async with client(tmp_path, node, settings) as k:
        result = await k.execute("q", "mine", mode="rlm", depth=0, quality=0.8)
    assert (result.text, result.metrics.calls) == ("42", 1)
    ((_, request),) = node.asked
    assert request == {
        "prompt": "q",
        "task_id": "mine",
        "mode": "rlm",
        "model": "m",
        "devices": "network",
        "failover": "queue",
        "retries_max": 3,
        "retry_delay_s": 0.5,
        "retry_is_exponential": False,
        "calls_max": 9,
        "depth": 0,
        "quality": 0.8,
    }


async def test_an_answer_of_a_type_is_held_to_its_schema(tmp_path: Path) -> None:
    async def numbers(_request: Reply, _emit: Emit) -> Reply:
        return ended("t1", "[1, 2]")

    node = Node(submit=numbers)
    async with client(tmp_path, node) as k:
        assert (await k.execute("q", answer_type=list[int])).value == [1, 2]
    schema = json.loads(str(node.asked[0][1]["json_schema"]))
    assert schema == {"items": {"type": "integer"}, "type": "array"}


async def test_context_is_on_disk_while_the_node_reads_it_and_no_longer(tmp_path: Path) -> None:
    seen: dict[str, bytes] = {}
    paths: list[Path] = []

    async def read(request: Reply, _emit: Emit) -> Reply:
        for one in request["context"]:  # type: ignore[attr-defined]
            paths.append(Path(one["path"]))
            seen[one["name"]] = paths[-1].read_bytes()
        return ended("t1")

    async with client(tmp_path, Node(submit=read)) as k:
        await k.execute("q", context={"a": "text", "b": b"\x00"})
    assert seen == {"a": b"text", "b": b"\x00"}
    assert not any(path.exists() for path in paths)


async def test_a_task_that_failed_raises_and_has_its_result(tmp_path: Path) -> None:
    async def fail(_request: Reply, _emit: Emit) -> Reply:
        return ended("t1", "half", "failed", "calls: 3 model calls are used up")

    async with client(tmp_path, Node(submit=fail)) as k:
        with pytest.raises(errors.BudgetSpent, match="used up") as spent:
            await k.execute("q")
    assert spent.value.result is not None
    assert spent.value.result.text == "half"


async def test_progress_of_all_tasks_or_of_one(tmp_path: Path) -> None:
    heard: list[ProgressUpdate] = []
    of_other: list[ProgressUpdate] = []
    async with (
        client(tmp_path, Node(submit=answer)) as k,
        k.subscribe_to_progress() as every,
        k.subscribe_to_progress("b") as one,
    ):
        await k.execute("q", "a", max_iterations=7)
        await k.execute("q", "b")
        await k.aclose()
        heard = [update async for update in every]
        of_other = [update async for update in one]
    kinds = ["submitted", "call", "turn", "ended"]
    assert [update.kind for update in heard] == kinds * 2
    assert [(update.kind, update.task_id) for update in of_other] == [(k, "b") for k in kinds]
    assert (heard[2].iteration, heard[2].max_iterations, heard[2].active_devices) == (1, 7, 1)


async def test_measurements_come_at_once_and_again_and_survive_a_node_that_is_away(
    tmp_path: Path,
) -> None:
    async def peers(_request: Reply, _emit: Emit) -> Reply:
        return {
            "peers": [peer("desk", is_self=True, load=0.5), peer("gpu"), peer("x", routable=False)]
        }

    async with client(tmp_path, Node(submit=answer, peers=peers)) as k:
        await k.execute("q")
        async with k.subscribe_to_metrics(every_s=0.01) as readings:
            first = await anext(readings)
            assert (await anext(readings)).active_devices == 2
    assert (first.active_devices, first.load, first.tasks_done, first.calls) == (2, 0.25, 1, 1)
    async with k.subscribe_to_metrics() as readings:
        assert (await anext(readings)).active_devices == 0


async def test_single_calls_programs_and_folds(tmp_path: Path) -> None:
    who = {"peer": "p", "name": "gpu", "why": "idle", "attempts": 1}

    async def ask(request: Reply, _emit: Emit) -> Reply:
        usage = {"prompt_tokens": 3, "completion_tokens": 1}
        words = {"text": f"<{request['prompt']}>", "thinking": "", "model": "m"}
        return {**words, "finish_reason": "stop", "usage": usage, **who}

    async def run(_request: Reply, emit: Emit) -> Reply:
        await emit({"kind": "output", "stream": "stdout", "text": "lost\n"})
        await emit({"kind": "restart", "text": "it was lost"})
        await emit({"kind": "output", "stream": "stdout", "text": "4"})
        await emit({"kind": "output", "stream": "stdout", "text": "2\n"})
        row = {"exit_code": 1, "status": "error", "error": "NameError: x", "value": None}
        return {**row, "duration_s": 0.1, "files": [], "files_omitted": 0, **who}

    async def fold(request: Reply, _emit: Emit) -> Reply:
        text = Path(str(request["path"])).read_text()
        return {"text": text[:2], "source_tokens": 8, "tokens": 2, "algorithm": "x", **who}

    async with client(tmp_path, Node(ask=ask, run=run, fold=fold), Settings(model="m")) as k:
        reply = await k.ask("hi")
        assert (reply.text, reply.prompt_tokens, reply.name) == ("<hi>", 3, "gpu")
        assert (await k.run("python", "x")).stdout == "42\n"
        with pytest.raises(errors.REPLError, match="NameError"):
            await k.run("python", "x", check=True)
        folded = await k.fold("a long text", ratio=0.25)
        assert (folded.text, folded.ratio) == ("a ", 0.25)


async def test_devices_are_found_by_name_id_or_its_end(tmp_path: Path) -> None:
    async def peers(_request: Reply, _emit: Emit) -> Reply:
        rows = [peer("desk", is_self=True, models=["a"]), peer("gpu", models=["b", "a"])]
        return {"peers": [*rows, peer("twin"), peer("twin", peer="other")]}

    async with client(tmp_path, Node(peers=peers)) as k:
        assert (await k.device("gpu")).peer == "id-of-gpu"
        assert (await k.device("id-of-gpu")).name == "gpu"
        assert (await k.device("f-gpu")).name == "gpu"
        for name in ("twin", "nobody", "gp"):
            with pytest.raises(errors.DeviceNotFound, match=name):
                await k.device(name)
        assert await k.models() == ("a", "b")
    local = Settings(cluster=ClusterConfig.local())
    async with client(tmp_path, Node(peers=peers), local) as k:
        assert await k.models() == ("a",)


async def test_cancelling_resuming_and_files_of_tasks(tmp_path: Path) -> None:
    async def cancel(request: Reply, _emit: Emit) -> Reply:
        if request["task"] != "t1":
            raise RequestRefusedError("unknown", "no such task")
        return {"task": "t1", "state": "cancelled", "answer": "half"}

    async def resume(request: Reply, _emit: Emit) -> Reply:
        return {"task": "t2", "resumes": request["task"], "is_new": True}

    async def files(request: Reply, _emit: Emit) -> Reply:
        lost = [{"name": "b", "bytes": 1, "error": "its holder is gone"}]
        kept = [{"name": "a", "bytes": 1, "path": "/tmp/a"}]
        return {"files": kept + (lost if request["task"] == "t2" else [])}

    node = Node(cancel=cancel, resume=resume, files=files, attach=answer)
    async with client(tmp_path, node) as k:
        assert await k.cancel_task("t1") == "half"
        with pytest.raises(errors.ExecutionError, match="no such task"):
            await k.cancel_task("t9")
        assert await k.resume("t1", timeout_s=5.0) == "t2"
        assert (await k.attach("t1")).text == "42"
        assert await k.files("t1") == {"a": Path("/tmp/a")}
        with pytest.raises(errors.DeviceFailed, match="its holder is gone"):
            await k.files("t2")


async def test_giving_up_waiting_is_no_error_of_the_client(tmp_path: Path) -> None:
    async def slow(_request: Reply, _emit: Emit) -> Reply:
        await trio.sleep_forever()
        raise AssertionError

    async def peers(_request: Reply, _emit: Emit) -> Reply:
        return {"peers": []}

    async with client(tmp_path, Node(submit=slow, peers=peers)) as k:
        with trio.move_on_after(0.05) as scope:
            await k.execute("q")
        assert scope.cancelled_caught
        async with k.subscribe_to_metrics() as readings:
            assert (await anext(readings)).tasks_running == 0


async def test_a_detached_task_is_followed_where_it_is_kept(tmp_path: Path) -> None:
    async def keep(_request: Reply, _emit: Emit) -> Reply:
        await trio.lowlevel.checkpoint()
        return {"task": "mine", "state": "running", "kept_by": ["a", "b", "c"]}

    node = Node(submit=keep, attach=answer)
    async with client(tmp_path, node) as k:
        assert (await k.execute("what?", "mine", detach=True)).text == "42"
    (_, submitted), (verb, attached) = node.asked
    assert submitted["detach"] is True
    assert (verb, attached) == ("attach", {"task": "mine"})
