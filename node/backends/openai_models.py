"""What an OpenAI-compatible server can run now: each kind says it in its own way.

`/v1/models` is "usable now" on llama-server and vLLM, and everything on disk in LM Studio; of exo
tells `exo_state`. Parsed leniently: what is missing stays unknown.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Awaitable, Callable
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


def with_slots(list_by: ListModels, slots: int) -> ListModels:
    """The same models, each with as many slots as the server's owner says."""

    async def listed(get: GetJson, server: OpenAiServer) -> tuple[ModelInfo, ...]:
        return tuple(dataclasses.replace(one, slots=slots) for one in await list_by(get, server))

    return listed


async def list_llama_server(get: GetJson, server: OpenAiServer) -> tuple[ModelInfo, ...]:
    """One model, always loaded; `/props` knows its slots, the context of each, and its template."""
    context_tokens: int | None = None
    capabilities: tuple[str, ...] = ()
    slots = 1
    # `/props` can be switched off; then one slot is safe.
    with contextlib.suppress(BackendError):
        props = await get(f"{server.url}/props")
        if isinstance(props, dict):
            slots = _positive(props.get("total_slots")) or 1
            settings = props.get("default_generation_settings")
            if isinstance(settings, dict):
                context_tokens = _positive(settings.get("n_ctx"))
            capabilities = _llama_capabilities(cast("JsonObject", props))
    entries = _entries(await get(f"{server.api_url}/models"))
    return tuple(
        ModelInfo(
            name,
            context_tokens or _context_tokens(entry),
            is_warm=True,
            slots=slots,
            size_bytes=_positive(_object(entry.get("meta")).get("size")) or 0,
            capabilities=capabilities,
        )
        for name, entry in entries
    )


def _llama_capabilities(props: JsonObject) -> tuple[str, ...]:
    """What its chat template can say: without a word for tools, llama.cpp drops them silently."""
    can: dict[str, bool] = {
        "chat": True,
        "vision": _object(props.get("modalities")).get("vision") is True,
        "tools": _object(props.get("chat_template_caps")).get("supports_tools") is True,
        "thinking": any(
            word in str(props.get("chat_template"))
            for word in ("enable_thinking", "reasoning_effort", "<think>")
        ),
    }
    if "chat_template_caps" not in props:
        return ()  # An older one, which does not tell.
    return tuple(name for name, is_so in can.items() if is_so)


async def list_lm_studio(get: GetJson, server: OpenAiServer) -> tuple[ModelInfo, ...]:
    """Loaded ones are warm, the others are loaded on demand; embedding models do not chat."""
    entries = _entries(await get(f"{server.url}/api/v0/models"))
    return tuple(
        ModelInfo(
            name,
            _positive(entry.get("loaded_context_length")) or _context_tokens(entry),
            is_warm=entry.get("state") == "loaded",
            capabilities=_lm_studio_capabilities(entry),
        )
        for name, entry in entries
    )


def _lm_studio_capabilities(entry: JsonObject) -> tuple[str, ...]:
    kind, told = entry.get("type"), entry.get("capabilities")
    if kind == "embeddings":
        return ("embed",)
    if not isinstance(told, list):
        # Versions before 0.3.16 do not tell.
        return ()
    can = {"chat": True, "vision": kind == "vlm", "tools": "tool_use" in told}
    return tuple(name for name, is_so in can.items() if is_so)


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


def _object(value: object) -> JsonObject:
    return cast("JsonObject", value) if isinstance(value, dict) else {}


def _positive(value: object) -> int | None:
    is_positive = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 32
    return cast("int", value) if is_positive else None
