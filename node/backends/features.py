"""What a request asks of a server beyond plain chat, and which kinds of servers honour what.

A server that does not know a field of a request mostly leaves it out without a word, and the answer
is one to another question. So what is not known to be honoured is refused. Texts to stop at and
"one call at a time" are honoured everywhere: where a server does not, `answers` sees to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from kowalski.node.backends.seam import CompletionRequest, ModelInfo

Feature: TypeAlias = Literal[
    "seed",
    "top_p",
    "top_k",
    "min_p",
    "penalties",
    "repeat_penalty",
    "tools",
    "tool_choice",
    "images",
    "json_schema",
    "logprobs",
    "thinking",
    "prompt",
    "so_far",
]

# What every server with OpenAI's API is expected to know, for it is in OpenAI's reference.
_REFERENCE: Final[frozenset[Feature]] = frozenset(
    {
        "seed",
        "top_p",
        "penalties",
        "tools",
        "tool_choice",
        "images",
        "json_schema",
        "logprobs",
        "prompt",
    }
)
_SAMPLERS: Final[frozenset[Feature]] = frozenset({"top_k", "min_p", "repeat_penalty"})
_WIDE: Final[frozenset[Feature]] = _REFERENCE | _SAMPLERS | frozenset[Feature]({"thinking"})
_WHOLE: Final[frozenset[Feature]] = _WIDE | frozenset[Feature]({"so_far"})

HONOURED: Final[Mapping[str, frozenset[Feature]]] = {
    "openai": _REFERENCE,
    # All of it tried with llama.cpp of October 2026; what a template cannot do, `/props` tells.
    "llama-server": _WHOLE,
    "vllm": _WHOLE,
    # A seed has no effect unless it was started for deterministic inference (sglang#1335, #15746).
    "sglang": _WHOLE - {"seed"},
    "lm-studio": (_REFERENCE | _SAMPLERS) - {"tool_choice", "logprobs"},
    # Takes response_format and tool_choice, and leaves them out.
    "exo": _WIDE - {"json_schema", "tool_choice", "prompt"},
    # Its own API, which has no choice of tools.
    "ollama": _WHOLE - {"tool_choice"},
}

_NEEDS: Final[Mapping[Feature, str]] = {"tools": "tools", "images": "vision"}
"""Features that are up to the model: the capability that it must have."""


def wanted(request: CompletionRequest) -> frozenset[Feature]:
    """The features that this request cannot do without."""
    sampling = request.sampling
    has_calls = any(one.role == "tool" or one.tool_calls for one in request.messages)
    is_asked: Mapping[Feature, bool] = {
        "seed": sampling.seed is not None,
        "top_p": sampling.top_p is not None,
        "top_k": sampling.top_k is not None,
        "min_p": sampling.min_p is not None,
        "penalties": (sampling.presence_penalty, sampling.frequency_penalty) != (None, None),
        "repeat_penalty": sampling.repeat_penalty is not None,
        "tools": has_calls or bool(request.tools),
        # To leave the choice to the model is what servers do unasked; so is "none" without tools.
        "tool_choice": request.tool_named is not None or request.tool_choice == "required",
        "images": any(one.images for one in request.messages),
        "json_schema": request.json_schema is not None,
        "logprobs": request.logprobs is not None,
        "thinking": request.thinking is not None,
        "prompt": request.prompt is not None,
        # A prompt is gone on with by making it longer.
        "so_far": bool(request.so_far) and request.prompt is None,
    }
    return frozenset(feature for feature, is_it in is_asked.items() if is_it)


def left_out(kind: str, request: CompletionRequest, model: ModelInfo) -> tuple[str, ...]:
    """What of the request a server of this kind, or this model, would leave out; sorted."""
    asked = wanted(request)
    if not asked:
        return ()  # plain chat
    missing: set[str] = {*(asked - HONOURED.get(kind, _REFERENCE))}
    missing |= {
        feature
        for feature, capability in _NEEDS.items()
        if feature in asked and not model.can(capability)
    }
    if "thinking" in asked and model.capabilities and "thinking" not in model.capabilities:
        # What cannot think has not to be told to leave it.
        missing -= {"thinking"} if request.thinking == "off" else set()
        missing |= {"thinking"} if request.thinking != "off" else set()
    if request.prompt is not None and request.logprobs is not None:
        missing.add("logprobs of a prompt")
    return tuple(sorted(missing))
