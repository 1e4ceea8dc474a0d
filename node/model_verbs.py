"""The verbs about models: which there are, fetch, load and unload them, and ask one."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.core.model_names import ANY_MODEL
from kowalski.mesh.mesh import Mesh
from kowalski.node import control_messages as asked
from kowalski.node.control import Emit, Verb
from kowalski.node.emitting import emitting
from kowalski.node.mesh_verbs import find_peer
from kowalski.node.plain_files import check_is_plain
from kowalski.node.services.model_work import Changed, ModelWork, Told
from kowalski.node.services.placed_work import PlacedWork
from kowalski.node.services.placing import Placed
from kowalski.protocol.errors import ConfigError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.limits import TEXT_BYTES_MAX
from kowalski.protocol.messages import inference as wire

Reply = dict[str, object]

IMAGES_BYTES_MAX = 512 * 1024
"""Of all images inside one message; a larger one goes by hash."""


class ModelVerbs:
    def __init__(self, mesh: Mesh, work: PlacedWork, store: ContentStore) -> None:
        self._mesh = mesh
        self._work = work
        self._store = store
        self._models = ModelWork(mesh)

    def offered(self) -> Mapping[str, Verb]:
        return {
            "ask": self.ask,
            "embed": self.embed,
            "models": self.models,
            "pull": self.pull,
            "load": self.load,
            "preview": self.preview,
            "unload": self.unload,
        }

    # --- asking one -----------------------------------------------------------------------------

    async def ask(self, raw: Reply, emit: Emit) -> Reply:
        request = asked.parse(asked.AskRequest, raw)
        if len((request.prompt + (request.system or "")).encode()) > TEXT_BYTES_MAX:
            raise ConfigError(f"more than {TEXT_BYTES_MAX} bytes; submit long text as --context")
        images = await self._images(request.images)
        system = (
            (wire.ChatMessage(role="system", content=request.system),) if request.system else ()
        )
        question = wire.ChatMessage(
            role="user", content=request.prompt, images=tuple(range(len(images)))
        )
        completion = wire.CompletionAsked(
            model=request.model or ANY_MODEL,
            messages=(*system, question),
            images=images,
            max_tokens=min(request.max_tokens, 1_000_000) if request.max_tokens else None,
            temperature=min(request.temperature, 2.0) if request.temperature is not None else None,
            sampling=wire.Sampling(seed=request.seed, stop=request.stop, top_p=request.top_p),
            json_schema=request.json_schema,
            thinking=request.thinking,
            remaining_s=request.timeout_s,
        )
        async with emitting(emit) as tell:

            def on_piece(delta: wire.CompletionDelta) -> None:
                if delta.thinking:
                    tell({"kind": "thinking", "text": delta.thinking})
                if delta.text:
                    tell({"kind": "delta", "text": delta.text})

            reply = await self._work.complete(
                completion,
                on_piece=on_piece,
                on_restart=lambda why: tell({"kind": "restart", "text": why}),
            )
        return {
            "text": reply.text,
            "thinking": reply.reply.thinking,
            "model": reply.done.model,
            "backend": reply.done.backend,
            "finish_reason": reply.done.finish_reason,
            "usage": reply.done.usage.model_dump(),
            **_who(reply.placed),
        }

    async def _images(self, paths: tuple[str, ...]) -> tuple[wire.Image, ...]:
        images: list[wire.Image] = []
        room = IMAGES_BYTES_MAX
        for path in map(Path, paths):
            try:
                await check_is_plain(path)
                size = (await trio.Path(path).stat()).st_size
                if size <= room:
                    room -= size
                    images.append(wire.Image(data=await trio.Path(path).read_bytes()))
                else:
                    images.append(wire.Image(content=await self._store.put_file(path)))
            except OSError as error:
                raise ConfigError(f"image {path}: {error.strerror or error}") from error
        return tuple(images)

    async def embed(self, raw: Reply, _emit: Emit) -> Reply:
        request = asked.parse(asked.EmbedRequest, raw)
        if sum(len(text.encode()) for text in request.texts) > TEXT_BYTES_MAX:
            raise ConfigError(f"more than {TEXT_BYTES_MAX} bytes of text at once")
        found = await self._work.embed(
            wire.EmbeddingsAsked(
                model=request.model,
                texts=request.texts,
                dimensions=request.dimensions,
                remaining_s=request.timeout_s,
            )
        )
        layout = f"<{found.done.dimensions}f"
        return {
            "embeddings": [list(struct.unpack(layout, vector)) for vector in found.vectors],
            "model": found.done.model,
            "backend": found.done.backend,
            "usage": found.done.usage.model_dump(),
            **_who(found.placed),
        }

    # --- the models themselves ------------------------------------------------------------------

    async def models(self, raw: Reply, _emit: Emit) -> Reply:
        request = asked.parse(asked.ModelsRequest, raw)
        told = await self._models.tell(request.query)
        rows = [
            row
            for one in told
            for row in _rows(one)
            if request.loadable or row["state"] != "loadable"
        ]
        return {
            "models": rows,
            "left_out": sum(one.models.left_out for one in told if one.models),
            "silent": [
                {"peer": one.peer, "name": one.name, "why": one.why_not}
                for one in told
                if one.models is None
            ],
            "can_pull": [one.name for one in told if one.models and one.models.can_pull],
        }

    async def pull(self, raw: Reply, emit: Emit) -> Reply:
        request = asked.parse(asked.PullRequest, raw)
        pull = wire.PullAsked(
            model=request.model, backend=request.backend, remaining_s=request.timeout_s
        )
        return await self._change(pull, request.on, emit)

    async def load(self, raw: Reply, emit: Emit) -> Reply:
        request = asked.parse(asked.LoadRequest, raw)
        load = wire.LoadAsked(
            model=request.model,
            backend=request.backend,
            sharding=request.sharding,
            devices_min=request.devices_min,
            remaining_s=request.timeout_s,
        )
        return await self._change(load, request.on, emit)

    async def unload(self, raw: Reply, emit: Emit) -> Reply:
        request = asked.parse(asked.UnloadRequest, raw)
        unload = wire.UnloadAsked(
            model=request.model,
            backend=request.backend,
            deletes=request.deletes,
            remaining_s=request.timeout_s,
        )
        return await self._change(unload, request.on, emit)

    async def preview(self, raw: Reply, _emit: Emit) -> Reply:
        request = asked.parse(asked.PreviewRequest, raw)
        preview = wire.PreviewsAsked(
            model=request.model, backend=request.backend, remaining_s=request.timeout_s
        )
        name, told = await self._models.preview(preview, on=self._peer(request.on))
        return {
            "model": told.model,
            "name": name,
            "explanation": told.explanation,
            "options": [option.model_dump() for option in told.options],
        }

    async def _change(
        self,
        change: wire.PullAsked | wire.LoadAsked | wire.UnloadAsked,
        on: str | None,
        emit: Emit,
    ) -> Reply:
        async with emitting(emit) as tell:
            done = await self._models.change(
                change,
                on=self._peer(on),
                on_progress=lambda name, step: tell(
                    {"kind": "progress", "name": name, **step.model_dump()}
                ),
            )
        return _changed(done)

    def _peer(self, named: str | None) -> PeerId | None:
        return None if named is None else find_peer(self._mesh, named)


def _rows(told: Told) -> list[Reply]:
    if told.models is None:
        return []
    return [
        {"peer": told.peer, "peer_name": told.name, **one.model_dump(exclude_none=True)}
        for one in told.models.models
    ]


def _changed(done: Changed) -> Reply:
    detail = done.reply.detail if isinstance(done.reply, wire.ModelReady) else ""
    return {
        "model": done.reply.model,
        "backend": done.reply.backend,
        "detail": detail,
        "held_s": done.reply.held_s,
        "peer": done.peer,
        "name": done.name,
    }


def _who(placed: Placed) -> Reply:
    return {
        "peer": placed.peer,
        "name": placed.name,
        "why": placed.why,
        "attempts": placed.attempts,
    }
