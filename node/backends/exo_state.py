"""What exo's state says: instances, their runners, the memory of its devices. No I/O.

Shapes: exo's `shared/types` at v1.0.60 to v1.0.71 and later. camelCase keys, one-key tagged unions,
every map optional; nothing here fails for what is missing or new. `/v1/models` of exo is the
catalogue of what could be loaded; what is usable now are instances all of whose runners are ready.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, cast

from kowalski.node.backends.lines import JsonObject, excerpt
from kowalski.node.backends.seam import BackendError, ModelInfo

Readiness = Literal["ready", "coming", "failed"]

_READY: Final = frozenset({"RunnerReady", "RunnerRunning"})
_FAILED: Final = frozenset({"RunnerFailed", "RunnerShutdown", "RunnerShuttingDown"})

INSTANCES_MAX: Final = 1000
PREVIEWS_MAX: Final = 32
NAME_CHARS_MAX: Final = 256
"""As on the wire."""

SLOTS: Final = 1
"""exo runs several requests of an instance at once since 1.0, by how many it does not tell."""


@dataclass(frozen=True, slots=True)
class Runner:
    """One shard of an instance, on one device. `progress` is 0 to 1 while it loads."""

    id: str
    status: str
    readiness: Readiness
    words: str = ""
    progress: float = 0.0


@dataclass(frozen=True, slots=True)
class Instance:
    """A model that was placed, over one device or several."""

    id: str
    model: str
    sharding: Literal["pipeline", "tensor", ""]
    devices: tuple[str, ...]
    runners: tuple[Runner, ...]
    card: ModelInfo

    @property
    def readiness(self) -> Readiness:
        states = {runner.readiness for runner in self.runners}
        if "failed" in states:
            return "failed"
        return "ready" if states == {"ready"} else "coming"

    def explain(self) -> str:
        """How far its runners are, in words."""
        counts: dict[str, int] = {}
        for runner in self.runners:
            counts[runner.status] = counts.get(runner.status, 0) + 1
        told = [f"{count} {status.removeprefix('Runner')}" for status, count in counts.items()]
        words = next((runner.words for runner in self.runners if runner.words), "")
        return ", ".join(told) + (f": {words}" if words else "")


def instances(told: object, runners: object) -> tuple[Instance, ...]:
    """Out of `/state/instances` and `/state/runners`."""
    if not isinstance(told, dict):
        return ()
    states = _object(runners)
    found: list[Instance] = []
    for name, tagged in list(told.items())[:INSTANCES_MAX]:
        inner = _untagged(tagged)
        assignments = _object(inner.get("shardAssignments"))
        model, shards = assignments.get("modelId"), _object(assignments.get("runnerToShard"))
        if not isinstance(model, str) or not 0 < len(model) <= NAME_CHARS_MAX or not shards:
            continue
        first = next(iter(shards.values()))
        found.append(
            Instance(
                id=str(name)[:NAME_CHARS_MAX],
                model=model,
                sharding=_sharding(first),
                devices=tuple(map(str, _object(assignments.get("nodeToRunner")))),
                runners=tuple(_runner(shard, states.get(shard)) for shard in shards),
                card=card(_object(_untagged(first).get("modelCard")), model),
            )
        )
    return tuple(found)


def usable(found: tuple[Instance, ...]) -> tuple[ModelInfo, ...]:
    """The models that can be asked now, each once; two instances of one do twice as much."""
    ready: dict[str, ModelInfo] = {}
    for instance in found:
        if instance.readiness == "ready":
            known = ready.get(instance.model)
            slots = SLOTS + (known.slots if known else 0)
            info = instance.card
            ready[instance.model] = ModelInfo(
                info.name, info.context_tokens, True, slots, info.size_bytes, info.capabilities
            )
    return tuple(ready.values())


def card(told: JsonObject, model: str) -> ModelInfo:
    """A model by its card, in camelCase as in the state."""
    return _described(
        model,
        told.get("contextLength"),
        _object(told.get("storageSize")).get("inBytes"),
        told.get("capabilities"),
    )


def catalogue(payload: object) -> tuple[ModelInfo, ...]:
    """Out of `/v1/models`, in snake_case: what exo could load, cold all of it.

    Raises:
        BackendError: it is no list of models.
    """
    data = payload.get("data") if isinstance(payload, dict) else None
    if not isinstance(data, list):
        raise BackendError("bad_reply", f"no list of models: {excerpt(payload)}")
    found: list[ModelInfo] = []
    for entry in data[:INSTANCES_MAX]:
        model = entry.get("id") if isinstance(entry, dict) else None
        tasks = entry.get("tasks") if isinstance(entry, dict) else None
        speaks = not isinstance(tasks, list) or "TextGeneration" in tasks
        if isinstance(model, str) and 0 < len(model) <= NAME_CHARS_MAX and speaks:
            megabytes = _positive(entry.get("storage_size_megabytes"))
            size = megabytes * 1024 * 1024 if megabytes else None
            found.append(
                _described(model, entry.get("context_length"), size, entry.get("capabilities"))
            )
    return tuple(found)


def _described(model: str, context: object, size: object, capabilities: object) -> ModelInfo:
    told = capabilities if isinstance(capabilities, list) else []
    can = ["chat", "tools"] + [word for word in ("vision", "thinking") if word in told]
    return ModelInfo(
        model,
        _positive(context),
        size_bytes=_positive(size) or 0,
        capabilities=tuple(can) if told else (),
    )


def devices(topology: object) -> tuple[str, ...]:
    """Who takes part: `topology.nodes`, ids or objects with one by version.

    Not `nodeIdentities`, which keeps the dead.
    """
    nodes = _object(topology).get("nodes")
    if not isinstance(nodes, list):
        return ()
    ids = [one.get("nodeId") if isinstance(one, dict) else one for one in nodes]
    return tuple(one for one in ids if isinstance(one, str))


def free_bytes(memory: object, present: tuple[str, ...]) -> dict[str, int]:
    """The free memory of each of the devices that are present, out of `/state/nodeMemory`."""
    told = _object(memory)
    free = {
        device: _positive(_object(_object(told.get(device)).get("ramAvailable")).get("inBytes"))
        for device in present
    }
    return {device: size for device, size in free.items() if size is not None}


def _runner(name: str, tagged: object) -> Runner:
    if isinstance(tagged, str):
        status, inner = tagged, JsonObject()
    elif isinstance(tagged, dict) and len(tagged) == 1:
        status, inner = str(next(iter(tagged))), _untagged(tagged)
    else:
        status, inner = "RunnerUnknown", JsonObject()
    readiness: Readiness = "coming"
    if status in _READY:
        readiness = "ready"
    elif status in _FAILED:
        readiness = "failed"
    words = inner.get("errorMessage")
    loaded, total = _positive(inner.get("layersLoaded")), _positive(inner.get("totalLayers"))
    return Runner(
        name,
        status,
        readiness,
        # The last line of a traceback says what; paths of files are nobody's business.
        words.strip().rpartition("\n")[2][:200] if isinstance(words, str) else "",
        min(1.0, loaded / total) if loaded and total else 0.0,
    )


def _sharding(shard: object) -> Literal["pipeline", "tensor", ""]:
    tag = next(iter(shard), "") if isinstance(shard, dict) else ""
    if tag.startswith("Pipeline"):
        return "pipeline"
    return "tensor" if tag.startswith("Tensor") else ""


def _untagged(value: object) -> JsonObject:
    """`{"Tag": {...}}` gives the inner object; anything else nothing."""
    if isinstance(value, dict) and len(value) == 1:
        return _object(next(iter(value.values())))
    return {}


def _object(value: object) -> JsonObject:
    return cast("JsonObject", value) if isinstance(value, dict) else {}


def _positive(value: object) -> int | None:
    is_positive = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 53
    return cast("int", value) if is_positive else None


def ways(payload: object) -> tuple[JsonObject, ...]:
    """The entries of `/instance/previews`.

    Raises:
        BackendError: it is no list of previews.
    """
    told = payload.get("previews") if isinstance(payload, dict) else None
    if not isinstance(told, list):
        raise BackendError("bad_reply", f"no list of previews: {excerpt(payload)}")
    return tuple(cast("JsonObject", one) for one in told[:PREVIEWS_MAX] if isinstance(one, dict))


def downloaded(told: object, model: str) -> str:
    """How far one device is with the download of a model, out of `/state/downloads/<device>`."""
    for entry in told if isinstance(told, list) else []:
        if not isinstance(entry, dict) or len(entry) != 1:
            continue
        inner = _untagged(entry)
        shard = _untagged(inner.get("shardMetadata"))
        if _object(shard.get("modelCard")).get("modelId") != model:
            continue
        if (error := inner.get("errorMessage")) and isinstance(error, str):
            return f"download failed: {error.strip().rpartition(chr(10))[2][:200]}"
        progress = _object(inner.get("downloadProgress")) or inner
        done = _positive(_object(progress.get("downloaded")).get("inBytes")) or 0
        total = _positive(_object(progress.get("total")).get("inBytes"))
        if total and next(iter(entry)) == "DownloadOngoing":
            return f"{done / 2**30:.1f} of {total / 2**30:.1f} GiB downloaded"
    return ""
