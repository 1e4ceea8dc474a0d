"""What a session must know to open: its inputs' texts, and what the mesh can do now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from kowalski.mesh.content_store import CHUNK_TIMEOUT_S, ContentStore
from kowalski.mesh.core.blame import Weather
from kowalski.mesh.core.placement import Devices, Need
from kowalski.mesh.mesh import Mesh
from kowalski.protocol.errors import PeerUnreachableError
from kowalski.protocol.messages.content import ContentAsked, ContentRef
from kowalski.protocol.messages.repl import Input
from kowalski.protocol.messages.task import TaskSpec
from kowalski.rlm.session import InputText, SessionLimits, limits_for

log = structlog.get_logger(__name__)

WHOLE_BYTES_MAX = 512 * 1024
"""Of all inputs together: more than a window of 100,000 tokens holds."""

HEAD_BYTES = 4096
WINDOW_TOKENS_DEFAULT = 8192
"""Of a model that does not tell; Ollama's and llama.cpp's defaults are 4096 to 8192."""


def _as_it_is(ref: ContentRef) -> ContentRef:
    return ref


@dataclass(frozen=True, slots=True)
class Outset:
    texts: tuple[InputText, ...]
    limits: SessionLimits


async def gather(
    spec: TaskSpec,
    store: ContentStore,
    mesh: Mesh,
    holders: Callable[[ContentRef], ContentRef] = _as_it_is,
) -> Outset:
    """Look around, and fetch small inputs whole and the beginnings of large ones.

    `holders` adds to a reference who else holds it.

    Raises:
        PeerUnreachableError: nobody who holds an input can be reached.
        RequestRefusedError: `no_capacity`, there is no room for it here.
    """
    texts: list[InputText] = []
    budget = WHOLE_BYTES_MAX
    for given in spec.inputs:
        if given.content.bytes_total <= budget:
            budget -= given.content.bytes_total
            path = await store.fetch(holders(given.content), mesh)
            data = path.read_bytes()
            texts.append(InputText(given.name, data.decode(errors="replace"), is_whole=True))
        else:
            head = await _head(holders(given.content), store, mesh)
            texts.append(InputText(given.name, head.decode(errors="replace"), is_whole=False))
    return Outset(tuple(texts), _limits(spec, mesh))


async def _head(ref: ContentRef, store: ContentStore, mesh: Mesh) -> bytes:
    if path := store.path(ref.hash):
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    asked = ContentAsked(hash=ref.hash, offset=0, bytes_max=HEAD_BYTES)
    for holder in ref.holders:
        try:
            return (await mesh.request_chunk(holder, asked, timeout_s=CHUNK_TIMEOUT_S)).data
        except Weather as error:
            log.info("holder-failed", peer=holder, content=ref.hash, why=str(error))
    raise PeerUnreachableError(f"no holder of input {ref.hash[:12]} can be reached")


def languages(mesh: Mesh, devices: Devices = "all") -> frozenset[str]:
    """What some peer runs now, of those that are wanted."""
    return frozenset(
        language
        for one in mesh.candidates()
        if one.is_routable
        and "repl" in one.roles
        and (devices == "all" or one.is_self == (devices == "local"))
        for language in one.languages
    )


def models(mesh: Mesh, devices: Devices = "all") -> tuple[str, ...]:
    """Everybody's, the best peer's first; each peer names its preferred one first."""
    names: list[str] = []
    for choice in mesh.rank(Need("inference", devices=devices)).choices:
        profile = mesh.facts_of(choice.peer).profile
        names += [model.name for model in profile.models] if profile else []
    return tuple(dict.fromkeys(names))


def _limits(spec: TaskSpec, mesh: Mesh) -> SessionLimits:
    """Fit to the smallest window among the models that may be asked."""
    windows = [
        model.context_tokens or WINDOW_TOKENS_DEFAULT
        for facts in mesh.facts()
        if facts.profile and facts.is_routable
        for model in facts.profile.models
        if spec.model in {None, model.name}
    ]
    wanted = spec.window_tokens or SessionLimits().window_tokens
    return limits_for(min([wanted, *windows]), spec.output_chars)


async def cell_inputs(
    spec: TaskSpec, prompt_input: str | None, store: ContentStore
) -> tuple[Input, ...]:
    """What cells see as context: the task's inputs, and the prompt where it is one of them."""
    if prompt_input is None:
        return spec.inputs
    content = await store.put(spec.prompt.encode())
    return (*spec.inputs, Input(name=prompt_input, content=content))
