"""Many tasks at once: in their order, each for itself, no more at a time than there is room."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from kowalski import ClusterConfig, ExecutionResult, Kowalski, Task, errors
from kowalski.builder import Settings
from kowalski.node.control import Emit
from kowalski.node_link import NodeLink
from kowalski.protocol.errors import RequestRefusedError
from tests.kowalski.scripted_verbs import Reply, ended, open_verbs, peer

pytestmark = pytest.mark.trio


class Crowd:
    """Tasks that take a moment; how many there were at once."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.loaded: list[object] = []
        self.rows = [peer("desk", is_self=True, models=["m"]), peer("gpu")]

    async def submit(self, request: Reply, _emit: Emit) -> Reply:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await trio.sleep(0.01)
        finally:
            self.now -= 1
        prompt = str(request["prompt"])
        if prompt == "bad":
            return ended("t", "", "failed", "no_model: nobody")
        return ended(prompt, f"<{prompt}>")

    async def peers(self, _request: Reply, _emit: Emit) -> Reply:
        return {"peers": self.rows}

    async def load(self, request: Reply, _emit: Emit) -> Reply:
        self.loaded.append(request["on"])
        raise RequestRefusedError("not_allowed", "its owner does not")

    @property
    def verbs(self) -> dict:  # type: ignore[type-arg]
        return {"submit": self.submit, "peers": self.peers, "load": self.load}


async def test_results_keep_their_order_and_errors_their_slots(tmp_path: Path) -> None:
    crowd = Crowd()
    async with open_verbs(tmp_path / "s", crowd.verbs) as path:
        k = Kowalski(NodeLink(path), Settings())
        tasks = [*map(str, range(40)), "bad", Task("last", mode="direct", options={"depth": 0})]
        results = await k.execute_batch(tasks, width=4)
    texts = [one.text if isinstance(one, ExecutionResult) else one for one in results]
    assert texts[:40] == [f"<{n}>" for n in range(40)]
    assert isinstance(texts[40], errors.NoDevicesAvailable)
    assert texts[41] == "<last>"
    assert 1 < crowd.most <= 4


async def test_with_auto_scaling_it_is_as_wide_as_the_devices_have_room(tmp_path: Path) -> None:
    crowd = Crowd()
    settings = Settings(model="m", cluster=ClusterConfig(auto_scaling=True))
    async with open_verbs(tmp_path / "s", crowd.verbs) as path:
        k = Kowalski(NodeLink(path), settings)
        await k.execute_batch([str(n) for n in range(60)])
        assert 4 < crowd.most <= 2 * 2 + 4 * 2
        assert crowd.loaded == ["id-of-gpu"], "asked to load the model, once"
        crowd.rows, crowd.most = [peer("desk", is_self=True, load=3.0)], 0
        await k.execute_batch([str(n) for n in range(10)])
        assert crowd.most <= 2


async def test_an_empty_batch_is_empty(tmp_path: Path) -> None:
    assert await Kowalski(NodeLink(tmp_path / "s"), Settings()).execute_batch([]) == []


async def test_what_is_wrong_with_the_node_is_said_in_every_slot(tmp_path: Path) -> None:
    k = Kowalski(NodeLink(tmp_path / "s"), Settings())
    assert [type(one) for one in await k.execute_batch(["a", "b"])] == [errors.NetworkError] * 2
