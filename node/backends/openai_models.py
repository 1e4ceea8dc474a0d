"""What an OpenAI-compatible server can run now: each kind says it in its own way.

`/v1/models` is "usable now" on llama-server and vLLM, the catalogue on exo, and everything on disk
in LM Studio. Parsed leniently: what is missing stays unknown.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, cast

from kowalski.node.backends.lines import JsonObject, excerpt
from kowalski.node.backends.seam import BackendError, ModelInfo

GetJson: TypeAlias = Callable[[str], Awaitable[object]]

MODELS_MAX = 1000
# As on the wire.
NAME_CHARS_MAX = 256
CONTEXT_NAMES = ("max_model_len", "context_length", "max_context_length", "n_ctx")

# Servers that do not tell how much they do at once. vLLM batches by itself (max_num_seqs 256), an
# unknown one is somebody's: be modest.
VLLM_SLOTS = 16
UNKNOWN_SLOTS = 4


@dataclass(frozen=True, slots=True)
class OpenAiServer:
    """Where a server is: `url` is its root, `api_url` what `/chat/completions` is appended to."""

    name: str
    url: str
    api_url: str
    api_key: str | None = None

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}


ListModels: TypeAlias = Callable[[GetJson, OpenAiServer], Awaitable[tuple[ModelInfo, ...]]]


async def list_generic(
    get: GetJson, server: OpenAiServer, *, slots: int = UNKNOWN_SLOTS
) -> tuple[ModelInfo, ...]:
    entries = _entries(await get(f"{server.api_url}/models"))
    return tuple(
        ModelInfo(name, _context_tokens(entry), is_warm=True, slots=slots)
        for name, entry in entries
    )


async def list_vllm(get: GetJson, server: OpenAiServer) -> tuple[ModelInfo, ...]:
    return await list_generic(get, server, slots=VLLM_SLOTS)


async def list_llama_server(get: GetJson, server: OpenAiServer) -> tuple[ModelInfo, ...]:
    """One model, always loaded; `/props` knows its slots and the context of each of them."""
    context_tokens: int | None = None
    slots = 1
    # `/props` can be switched off; then one slot is safe.
    with contextlib.suppress(BackendError):
        props = await get(f"{server.url}/props")
        if isinstance(props, dict):
            slots = _positive(props.get("total_slots")) or 1
            settings = props.get("default_generation_settings")
            if isinstance(settings, dict):
                context_tokens = _positive(settings.get("n_ctx"))
    entries = _entries(await get(f"{server.api_url}/models"))
    return tuple(
        ModelInfo(name, context_tokens or _context_tokens(entry), is_warm=True, slots=slots)
        for name, entry in entries
    )


async def list_lm_studio(get: GetJson, server: OpenAiServer) -> tuple[ModelInfo, ...]:
    """Loaded ones are warm, the others are loaded on demand; embedding models do not chat."""
    entries = _entries(await get(f"{server.url}/api/v0/models"))
    return tuple(
        ModelInfo(
            name,
            _positive(entry.get("loaded_context_length")) or _context_tokens(entry),
            is_warm=entry.get("state") == "loaded",
        )
        for name, entry in entries
        if entry.get("type") != "embeddings"
    )


async def list_exo(get: GetJson, server: OpenAiServer) -> tuple[ModelInfo, ...]:
    """The models of the instances all of whose runners are ready or running."""
    try:
        instances = await get(f"{server.url}/state/instances")
        runners = await get(f"{server.url}/state/runners")
    except BackendError as error:
        if error.code != "model_missing":
            raise
        # Before v1.0.70 the state came in one piece only.
        state = await get(f"{server.url}/state")
        whole = cast("JsonObject", state) if isinstance(state, dict) else {}
        instances, runners = whole.get("instances"), whole.get("runners")
    found: dict[str, ModelInfo] = {}
    for model, shards in _exo_instances(instances):
        if all(_exo_is_ready(runners, runner) for runner in shards):
            found[model] = ModelInfo(model, _exo_context(shards), is_warm=True)
    return tuple(found.values())


def _entries(payload: object) -> list[tuple[str, JsonObject]]:
    data = payload.get("data") if isinstance(payload, dict) else payload
    if data is None:
        return []
    if not isinstance(data, list):
        raise BackendError("bad_reply", f"no list of models: {excerpt(payload)}")
    named: dict[str, JsonObject] = {}
    for entry in data[:MODELS_MAX]:
        name = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(name, str) and 0 < len(name) <= NAME_CHARS_MAX:
            named[name] = cast("JsonObject", entry)
    return list(named.items())


def _context_tokens(entry: JsonObject) -> int | None:
    meta = entry.get("meta")
    for place in (entry, meta):
        if isinstance(place, dict):
            for name in CONTEXT_NAMES:
                if tokens := _positive(place.get(name)):
                    return tokens
    return None


def _positive(value: object) -> int | None:
    is_positive = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 32
    return cast("int", value) if is_positive else None


def _exo_instances(instances: object) -> Iterator[tuple[str, JsonObject]]:
    """Model and `runnerToShard` of each instance, out of its one-key tag."""
    if not isinstance(instances, dict):
        return
    for instance in instances.values():
        assignments = _untagged(instance).get("shardAssignments")
        if not isinstance(assignments, dict):
            continue
        model, shards = assignments.get("modelId"), assignments.get("runnerToShard")
        if isinstance(model, str) and isinstance(shards, dict) and shards:
            yield model, cast("JsonObject", shards)


def _exo_is_ready(runners: object, runner: str) -> bool:
    status = runners.get(runner) if isinstance(runners, dict) else None
    if isinstance(status, dict) and len(status) == 1:
        status = next(iter(status))
    return status in ("RunnerReady", "RunnerRunning")


def _exo_context(shards: JsonObject) -> int | None:
    card = _untagged(next(iter(shards.values()))).get("modelCard")
    return _positive(card.get("contextLength")) if isinstance(card, dict) else None


def _untagged(value: object) -> JsonObject:
    """`{"Tag": {...}}` gives the inner object; anything else nothing."""
    if isinstance(value, dict) and len(value) == 1:
        inner = next(iter(value.values()))
        if isinstance(inner, dict):
            return cast("JsonObject", inner)
    return {}
