"""What a session must know to open: its inputs' texts, and what the mesh can do now."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
import trio

from kowalski.mesh.content_store import CHUNK_TIMEOUT_S, ContentStore
from kowalski.mesh.core import model_names
from kowalski.mesh.core.blame import Weather
from kowalski.mesh.core.model_names import ANY_MODEL
from kowalski.mesh.core.placement import Devices, Need
from kowalski.mesh.mesh import Mesh
from kowalski.node.core.lately_here import lately_here
from kowalski.node.services.token_counts import Counts, TokenCounts
from kowalski.protocol.errors import PeerUnreachableError
from kowalski.protocol.messages.content import ContentAsked, ContentRef
from kowalski.protocol.messages.journal import Opened
from kowalski.protocol.messages.repl import Input
from kowalski.protocol.messages.task import TaskSpec
from kowalski.protocol.messages.telemetry import Model
from kowalski.rlm.opening import to_count
from kowalski.rlm.session import CannotOpen, InputText, SessionLimits, limits_for, open_session
from kowalski.rlm.tokens import estimate_tokens
from kowalski.rlm.window_size import UNLEARNT, TokenScale, room_tokens

log = structlog.get_logger(__name__)

WHOLE_BYTES_MAX = 512 * 1024
"""Of all inputs together: more than a window of 100,000 tokens holds."""

HEAD_BYTES = 4096
COUNT_S = 3.0
"""What an exact count is worth waiting for, before a session opens."""


def _as_it_is(ref: ContentRef) -> ContentRef:
    return ref


async def gather(
    spec: TaskSpec,
    store: ContentStore,
    mesh: Mesh,
    holders: Callable[[ContentRef], ContentRef] = _as_it_is,
) -> tuple[InputText, ...]:
    """Fetch small inputs whole and the beginnings of large ones.

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
    return tuple(texts)


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
    """What some peer runs now and will, of those that are wanted."""
    return frozenset(
        language
        for one in mesh.candidates()
        if one.is_routable
        and not one.is_draining
        and "repl" in one.roles
        and (devices == "all" or one.is_self == (devices == "local"))
        for language in one.languages
    )


def models(mesh: Mesh, devices: Devices = "all") -> tuple[str, ...]:
    """Everybody's that chat, the best peer's first; each peer names its preferred one first."""
    names: list[str] = []
    for choice in mesh.rank(Need("inference", devices=devices)).choices:
        if choice.candidate.is_draining:
            continue
        profile = mesh.facts_of(choice.peer).profile
        names += [model.name for model in profile.models if _chats(model)] if profile else []
    return tuple(dict.fromkeys(names))


def _chats(model: Model) -> bool:
    return "chat" in (model.capabilities or ("chat",))


def limits_of(
    spec: TaskSpec, mesh: Mesh, model: str | None, scale: TokenScale = UNLEARNT
) -> SessionLimits:
    """Fit to the smallest window in which `model` is to be had; None: among all that chat."""
    told = [
        one
        for facts in mesh.facts()
        if facts.profile and facts.is_routable
        for one in facts.profile.models
        if _chats(one)
    ]
    names = {one.name for one in told}
    asked = names if model in {None, ANY_MODEL} else model_names.resolve(str(model), names)
    windows = [one.context_tokens for one in told if one.name in asked]
    wanted = spec.window_tokens or SessionLimits().window_tokens
    return limits_for(room_tokens(wanted, windows), spec.output_chars, scale)


async def open_now(
    spec: TaskSpec, texts: Sequence[InputText], mesh: Mesh
) -> tuple[Opened | CannotOpen, SessionLimits]:
    """How a session goes that opens at this moment, and within which limits."""
    usable = models(mesh, spec.devices)
    if spec.model is not None and model_names.resolve(spec.model, usable):
        usable = (spec.model, *usable)
    model = spec.model or next(iter(usable), None)
    limits = limits_of(spec, mesh, model)
    counted: int | None = None
    wanted = to_count(spec, texts, limits)
    if model is not None and wanted is not None:
        told = await _count(model, wanted, mesh)
        if told is not None:
            total, estimated = sum(told.counts), sum(map(estimate_tokens, wanted))
            scale = UNLEARNT.told(estimated, total, is_exact=not told.is_estimate)
            limits = limits_of(spec, mesh, model, scale)
            counted = None if told.is_estimate else total
    opened = open_session(
        spec,
        languages=languages(mesh, spec.devices),
        models=usable,
        limits=limits,
        inputs=texts,
        counted_tokens=counted,
    )
    return opened, limits


def would_open_with_the_absent(
    spec: TaskSpec, texts: Sequence[InputText], mesh: Mesh, limits: SessionLimits
) -> bool:
    """Whether a session would open if those were here that lately were."""
    absent = lately_here(mesh.facts(), spec.devices)
    if not absent:
        return False
    chatting = (model.name for one in absent for model in one.profile.models if _chats(model))
    opened = open_session(
        spec,
        languages=languages(mesh, spec.devices).union(
            *(one.languages for one in absent if "repl" in one.roles)
        ),
        models=(*models(mesh, spec.devices), *chatting),
        limits=limits,
        inputs=texts,
    )
    return isinstance(opened, Opened)


async def _count(model: str, texts: Sequence[str], mesh: Mesh) -> Counts | None:
    """As a peer counts them or has learnt to estimate them; None: nobody does, in this time."""
    with trio.move_on_after(COUNT_S):
        told = await TokenCounts(mesh).count(model, texts)
        return told if told.by is not None else None
    return None


async def cell_inputs(
    spec: TaskSpec, prompt_input: str | None, store: ContentStore
) -> tuple[Input, ...]:
    """What cells see as context: the task's inputs, and the prompt where it is one of them."""
    if prompt_input is None:
        return spec.inputs
    content = await store.put(spec.prompt.encode())
    return (*spec.inputs, Input(name=prompt_input, content=content))
