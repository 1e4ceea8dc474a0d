"""What a program says before it is connected, and what it is told when that cannot be had."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio

from kowalski import ClusterConfig, DeviceFilter, Kowalski, ShardingStrategy, errors
from kowalski.node import places
from kowalski.node.control import Emit
from tests.kowalski.scripted_verbs import Reply, open_verbs, peer

pytestmark = pytest.mark.trio


class Mesh:
    def __init__(self, *rows: Reply) -> None:
        self.rows = list(rows)
        self.loaded: list[Reply] = []

    async def peers(self, _request: Reply, _emit: Emit) -> Reply:
        return {"peers": self.rows}

    async def status(self, _request: Reply, _emit: Emit) -> Reply:
        return {"backends": ["http://127.0.0.1:52415/"]}

    async def load(self, request: Reply, _emit: Emit) -> Reply:
        self.loaded.append(request)
        return {"name": "gpu"}

    def at(self, data_dir: Path) -> AbstractAsyncContextManager[Path]:
        verbs = {"peers": self.peers, "status": self.status, "load": self.load}
        return open_verbs(places.control_path(data_dir), verbs)


DESK = peer("desk", is_self=True)


async def test_each_with_leaves_the_builder_it_was_called_on_as_it_was(tmp_path: Path) -> None:
    plain = Kowalski.builder().with_node(tmp_path)
    named = plain.with_model("m").with_options(depth=0).with_options(seed=1)
    async with Mesh(DESK).at(tmp_path), plain.build() as k, named.build() as other:
        assert (k.settings.model, k.settings.options) == (None, {})
        assert (other.settings.model, other.settings.options) == ("m", {"depth": 0, "seed": 1})


async def test_a_client_can_be_had_without_a_block(tmp_path: Path) -> None:
    async with Mesh(DESK).at(tmp_path):
        k = await Kowalski.builder().with_node(tmp_path).build()
        assert [one.name for one in await k.devices()] == ["desk"]
        await k.aclose()


async def test_the_node_of_the_environment_is_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOWALSKI_DATA_DIR", str(tmp_path))
    async with Mesh(DESK).at(tmp_path), Kowalski.builder().build() as k:
        assert (await k.device("desk")).is_self


async def test_it_waits_until_as_many_devices_are_there_as_are_wanted(tmp_path: Path) -> None:
    mesh = Mesh(DESK)
    config = ClusterConfig(device_filter=DeviceFilter.NETWORK, device_discovery_timeout_s=30.0)
    builder = Kowalski.builder().with_node(tmp_path).with_cluster(config)
    async with mesh.at(tmp_path), trio.open_nursery() as nursery:

        async def arrive() -> None:
            await trio.sleep(0.15)
            mesh.rows.append(peer("gpu"))

        nursery.start_soon(arrive)
        async with builder.build() as k:
            assert len(await k.usable_devices()) == 1


async def test_too_few_devices_in_time_are_told_by_number(tmp_path: Path) -> None:
    config = ClusterConfig(devices_min=2, device_discovery_timeout_s=0.2)
    async with Mesh(DESK).at(tmp_path):
        with pytest.raises(errors.DiscoveryTimeout, match=r"1 of 2 devices \(all\) within 0\.2 s"):
            await Kowalski.builder().with_node(tmp_path).with_cluster(config).build()


async def test_without_a_node_it_says_so_at_once(tmp_path: Path) -> None:
    with pytest.raises(errors.NetworkError, match="no node is running"):
        await Kowalski.builder().with_node(tmp_path).build()


async def test_an_exo_must_be_a_backend_of_the_node(tmp_path: Path) -> None:
    builder = Kowalski.builder().with_node(tmp_path)
    with pytest.raises(errors.ConfigError, match="not an http URL"):
        builder.with_exo_api("127.0.0.1:52415")
    async with Mesh(DESK).at(tmp_path):
        async with builder.with_exo_api("http://127.0.0.1:52415").build():
            pass
        with pytest.raises(errors.ConfigError, match="start it with --backend http://other:1"):
            await builder.with_exo_api("http://other:1").build()


async def test_a_model_that_is_to_be_sharded_is_loaded_first(tmp_path: Path) -> None:
    config = ClusterConfig(sharding_strategy=ShardingStrategy.TENSOR)
    builder = Kowalski.builder().with_node(tmp_path).with_model("big").with_cluster(config)
    mesh = Mesh(DESK)
    async with mesh.at(tmp_path):
        async with builder.build():
            (asked,) = mesh.loaded
            assert (asked["model"], asked["sharding"]) == ("big", "tensor")
        mesh.rows = [peer("desk", is_self=True, models=["big"])]
        async with builder.build():
            assert len(mesh.loaded) == 1, "it is there already"
