"""The models that the mesh can run now, as its members tell, in clients' lists. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kowalski.mesh.core import model_names
from kowalski.mesh.peer_facts import PeerFacts
from kowalski.node.core.lately_served import LATELY_S
from kowalski.node.http.faces.ollama import time_text
from kowalski.protocol.messages.telemetry import Model


@dataclass(frozen=True, slots=True)
class MeshModel:
    """One model by its name, wherever it can be run; `warm` are the peers that hold it loaded."""

    name: str
    peers: tuple[str, ...]
    warm: tuple[str, ...]
    told: Model


def mesh_models(facts: Iterable[PeerFacts]) -> tuple[MeshModel, ...]:
    """Every model of a peer that can be reached, warm ones first, then by name."""
    found: dict[str, list[tuple[str, Model]]] = {}
    for one in facts:
        if one.profile is None or not one.is_routable:
            continue
        for model in one.profile.models:
            found.setdefault(model.name, []).append((one.name, model))
    models = [
        MeshModel(
            name=name,
            peers=tuple(peer for peer, _ in told),
            warm=tuple(peer for peer, model in told if model.is_warm),
            told=told[0][1],
        )
        for name, told in found.items()
    ]
    return tuple(sorted(models, key=lambda one: (not one.warm, one.name)))


def just_gone(name: str, facts: Iterable[PeerFacts]) -> tuple[PeerFacts, ...]:
    """Who had the model and was heard a moment ago, but cannot be reached now."""
    return tuple(
        one
        for one in facts
        if one.profile is not None
        and not one.is_routable
        and one.age_s is not None
        and one.age_s <= LATELY_S
        and model_names.resolve(name, {model.name for model in one.profile.models})
    )


def find(name: str, models: Iterable[MeshModel]) -> MeshModel | None:
    """The one that is meant by `name`, other spellings of it included."""
    by_name = {one.name: one for one in models}
    resolved = model_names.resolve(name, by_name)
    return by_name[resolved[0]] if resolved else None


def openai_row(model: MeshModel, created: int) -> dict[str, object]:
    return {
        "id": model.name,
        "object": "model",
        "created": created,
        "owned_by": model.told.backend or "kowalski",
        "kowalski": {
            "peers": list(model.peers),
            "warm": list(model.warm),
            "context_tokens": model.told.context_tokens,
            "capabilities": list(model.told.capabilities),
        },
    }


def anthropic_row(model: MeshModel, now_unix_s: float) -> dict[str, object]:
    return {
        "type": "model",
        "id": model.name,
        "display_name": model.name,
        "created_at": time_text(now_unix_s),
    }


def ollama_row(model: MeshModel, now_unix_s: float) -> dict[str, object]:
    """As in `/api/tags` and `/api/ps`. Names there have a tag, `latest` where nothing is said."""
    name = model.name if ":" in model.name else f"{model.name}:latest"
    return {
        "name": name,
        "model": name,
        "modified_at": time_text(now_unix_s),
        "size": model.told.size_bytes,
        "digest": "",
        "details": details(model),
    }


def ollama_show(model: MeshModel) -> dict[str, object]:
    capabilities = {"chat": "completion", "embed": "embedding"}
    info: dict[str, object] = {"general.basename": model.name}
    if model.told.context_tokens is not None:
        family = model_names.parse(model.name).family
        info["general.architecture"] = family
        info[f"{family}.context_length"] = model.told.context_tokens
    return {
        "details": details(model),
        "model_info": info,
        "capabilities": [capabilities.get(one, one) for one in model.told.capabilities],
        "kowalski": {"peers": list(model.peers), "warm": list(model.warm)},
    }


def details(model: MeshModel) -> dict[str, object]:
    parsed = model_names.parse(model.name)
    return {
        "format": "gguf",
        "family": parsed.family,
        "families": [parsed.family],
        "parameter_size": " ".join(sorted(parsed.sizes)).upper(),
        "quantization_level": f"Q{parsed.bits}" if parsed.bits else "",
    }
