"""A test double: exo's interface, played by a few lines of state in virtual time. It runs no model.

What it answers has the shapes of `reference/exo.md`; what it does is told by `Plan`: when the
instance appears after `place_instance`, and in which states its runners are from when on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import trio

from tests.faulty_network import Asked, Recording

MODEL = "mlx-community/Llama-3.3-70B-Instruct-4bit"
GIB = 2**30


def card(model: str = MODEL) -> dict[str, Any]:
    return {
        "modelId": model,
        "storageSize": {"inBytes": 40 * GIB},
        "nLayers": 80,
        "contextLength": 131072,
        "capabilities": ["text"],
    }


def instance(name: str, runners: tuple[str, ...], sharding: str = "Pipeline") -> dict[str, Any]:
    shards = {
        runner: {f"{sharding}ShardMetadata": {"modelCard": card(), "deviceRank": rank}}
        for rank, runner in enumerate(runners)
    }
    devices = {f"device-{rank}": runner for rank, runner in enumerate(runners)}
    assignments = {"modelId": MODEL, "runnerToShard": shards, "nodeToRunner": devices}
    return {"MlxRingInstance": {"instanceId": name, "shardAssignments": assignments}}


def preview(sharding: str, link: str, error: str | None = None, **gib: int) -> dict[str, Any]:
    runners = tuple(f"r{n}" for n in range(len(gib)))
    return {
        "model_id": MODEL,
        "sharding": sharding,
        "instance_meta": link,
        "instance": None if error else instance("preview", runners, sharding),
        "memory_delta_by_node": None if error else {d: size * GIB for d, size in gib.items()},
        "error": error,
    }


States = tuple[dict[str, Any], ...]
READY = {"RunnerReady": {"prefillServerPort": None}}
LOADING = {"RunnerLoading": {"layersLoaded": 20, "totalLayers": 80}}
IDLE = {"RunnerIdle": {}}
FAILED = {"RunnerFailed": {"errorMessage": "Traceback\nMemoryError: out of memory", "x": 1}}


@dataclass
class Plan:
    """`states` are (seconds after it appeared, states of the runners), in order."""

    appears_after_s: float = 2.0
    states: tuple[tuple[float, States], ...] = ((0.0, (IDLE, IDLE)), (3.0, (READY, READY)))
    dies_after_s: float = float("inf")
    removed_after_s: float = float("inf")


@dataclass
class ScriptedExo:
    """`give` is what a `FaultyNetwork` plays."""

    plan: Plan = field(default_factory=Plan)
    previews: tuple[dict[str, Any], ...] = (
        preview("Pipeline", "MlxRing", **{"device-0": 20, "device-1": 20}),
        preview("Tensor", "MlxRing", **{"device-0": 20, "device-1": 20}),
        preview("Tensor", "MlxJaccl", "no RDMA between the devices"),
    )
    has_state_paths: bool = True
    commands: list[tuple[str, Any]] = field(default_factory=list)
    placed_at: float | None = None

    @property
    def _age_s(self) -> float | None:
        """Of the instance; None while there is none."""
        if self.placed_at is None:
            return None
        age_s = trio.current_time() - self.placed_at - self.plan.appears_after_s
        return age_s if 0 <= age_s < self.plan.removed_after_s else None

    def state(self) -> dict[str, Any]:
        whole: dict[str, Any] = {
            "topology": {"nodes": ["device-0", "device-1"], "connections": {}},
            "nodeMemory": {
                f"device-{n}": {"ramAvailable": {"inBytes": size * GIB}}
                for n, size in enumerate((64, 32))
            },
            "instances": {},
            "runners": {},
            "downloads": {"device-0": [], "device-1": []},
        }
        if (age_s := self._age_s) is not None:
            states = [states for since, states in self.plan.states if since <= age_s][-1]
            runners = tuple(f"runner-{n}" for n in range(len(states)))
            whole["instances"] = {"made": instance("made", runners)}
            whole["runners"] = dict(zip(runners, states, strict=True))
            done = min(40, int(10 * age_s)) * GIB
            progress = {"downloaded": {"inBytes": done}, "total": {"inBytes": 40 * GIB}}
            shard = {"PipelineShardMetadata": {"modelCard": card()}}
            ongoing = {"nodeId": "device-0", "shardMetadata": shard, "downloadProgress": progress}
            whole["downloads"]["device-0"] = [{"DownloadOngoing": ongoing}]
        return whole

    def give(self, asked: Asked) -> Recording | bytes | None:
        placed_at = self.placed_at
        if placed_at is not None and trio.current_time() - placed_at >= self.plan.dies_after_s:
            return b""
        if asked.method in ("POST", "DELETE"):
            return self._obey(asked)
        path, _, query = asked.path.partition("?")
        if path.startswith("/state/"):
            return self._part_of_state(path.removeprefix("/state/"))
        is_known = MODEL.replace("/", "%2F") in query
        answers: dict[str, Any] = {
            "/node_id": "7d86f3a1",
            "/v1/models": {"object": "list", "data": [{"id": MODEL, "context_length": 131072}]},
            "/instance/previews": {"previews": list(self.previews) if is_known else []},
            "/state": self.state(),
        }
        return answer(answers[path]) if path in answers else None

    def _part_of_state(self, path: str) -> Recording | None:
        if not self.has_state_paths:
            return None
        found: Any = self.state()
        for name in path.split("/"):
            found = found.get(name)
        return answer(found)

    def _obey(self, asked: Asked) -> Recording | None:
        self.commands.append((asked.key, asked.body))
        if asked.path == "/place_instance":
            self.placed_at = trio.current_time()
        elif asked.method == "DELETE":
            self.placed_at = None
        return answer({"message": "Command received.", "command_id": "3f1c"})


def answer(value: object) -> Recording:
    head = "HTTP/1.1 200\ncontent-type: application/json\nserver: hypercorn-h11"
    return Recording(head, json.dumps(value).encode())
