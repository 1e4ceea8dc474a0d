"""Ollama's ways to fetch and delete a model, done by a peer of the mesh that will.

As its API reference has them: lines of JSON with `status`, `digest`, `total` and `completed`, the
last of them `success`, or `error`. `on` in the body names the peer; any will do otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.control import Emit, Verb
from kowalski.node.http.exchange import Exchange, HttpError, dump
from kowalski.node.http.faces.ollama import BODIES, REFERENCE, error_answer
from kowalski.node.http.faces.words import http_error, schema_of
from kowalski.node.http.routing import Route
from kowalski.protocol.errors import KowalskiError

Json = dict[str, object]

LINES: Final = "application/x-ndjson"
KEEP_ALIVE_S: Final = 10.0
"""Between two lines; the last is said again, since a server may be silent for minutes."""


@dataclass(frozen=True, slots=True)
class PullRoutes:
    """`verbs` are the node's; without `pull` or `unload` there is no route."""

    verbs: Mapping[str, Verb]

    def routes(self) -> tuple[Route, ...]:
        found: list[Route] = []
        if "pull" in self.verbs:
            body = partial(schema_of, BODIES["/api/pull"], "Ollama")
            found.append(
                Route(
                    "POST",
                    "/api/pull",
                    self._pull,
                    "Fetch a model",
                    "Ollama",
                    body,
                    stream=LINES,
                    reference=REFERENCE,
                )
            )
        if "unload" in self.verbs:
            found.append(Route("DELETE", "/api/delete", self._delete, "Delete a model", "Ollama"))
        return tuple(found)

    async def _pull(self, exchange: Exchange, _parts: dict[str, str]) -> None:
        body = await exchange.json()
        lines = _Lines(exchange)
        try:
            with exchange.until_stopping():
                no = await lines.follow(self.verbs["pull"], body)
        except HttpError as stops:
            no = stops
        if no is not None and not exchange.has_begun:
            await exchange.answer_json(error_answer(no), no.status, headers=no.headers)
        elif body.get("stream") is False:
            await exchange.answer_json({"status": "success"})
        else:
            await lines.end({"status": "success"} if no is None else error_answer(no))

    async def _delete(self, exchange: Exchange, _parts: dict[str, str]) -> None:
        body = await exchange.json()
        no = await _done(self.verbs["unload"], {"deletes": True}, body, _unheard)
        told = ({}, 200) if no is None else (error_answer(no), no.status)
        await exchange.answer_json(*told, headers=() if no is None else no.headers)


async def _done(verb: Verb, more: Json, body: Mapping[str, object], emit: Emit) -> HttpError | None:
    """What went wrong, if something did."""
    try:
        await verb({**_asked(body), **more}, emit)
    except KowalskiError as error:
        return http_error(error)
    except HttpError as error:
        return error
    return None


async def _unheard(_event: Json) -> None:
    await trio.lowlevel.checkpoint()


class _Lines:
    """The lines of one pull. Nothing is sent before there is something to tell."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._turn = trio.Lock()
        self._last: Json = {}
        self._said_at = trio.current_time()

    async def follow(self, verb: Verb, body: Mapping[str, object]) -> HttpError | None:
        """Do it, and tell of each step, or of none if the client wants no stream."""
        if body.get("stream") is False:
            return await _done(verb, {}, body, _unheard)
        async with open_plain_nursery() as nursery:
            nursery.start_soon(self._keep_alive)
            no = await _done(verb, {}, body, self._hear)
            async with self._turn:  # no line is half written
                nursery.cancel_scope.cancel()
        return no

    async def _hear(self, event: Json) -> None:
        if event.get("kind") == "progress":
            await self._say(_line(event))

    async def _keep_alive(self) -> None:
        while True:
            await trio.sleep_until(self._said_at + KEEP_ALIVE_S)
            if trio.current_time() >= self._said_at + KEEP_ALIVE_S:
                await self._say(self._last or {"status": "looking for a peer"})

    async def end(self, line: Json) -> None:
        await self._say(line)
        await self._exchange.end()

    async def _say(self, line: Json) -> None:
        async with self._turn:
            self._last = line
            self._said_at = trio.current_time()
            if not self._exchange.has_begun:
                await self._exchange.begin(200, (("content-type", LINES),))
            await self._exchange.send(dump(line) + b"\n")


def _line(event: Json) -> Json:
    """A step of a pull in Ollama's words. Clients draw one bar for each digest."""
    status = str(event.get("detail") or event.get("stage") or "pulling")
    told: Json = {"status": status, "kowalski": {"name": event.get("name")}}
    if event.get("bytes_total"):
        told |= {
            "digest": status.removeprefix("pulling "),
            "total": event["bytes_total"],
            "completed": event.get("bytes_done", 0),
        }
    return told


def _asked(body: Mapping[str, object]) -> Json:
    """Raises HttpError: 400."""
    model = body.get("model") or body.get("name")
    if not isinstance(model, str):
        raise HttpError(400, "invalid_request", "model: missing")
    asked: Json = {"model": model}
    if body.get("on") is not None:
        asked["on"] = body["on"]
    return asked
