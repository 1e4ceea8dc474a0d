"""The mesh itself over HTTP: what the command line's verbs do, as JSON and as events.

A verb answers with its result; what it says on the way goes out as server-sent events to those who
accept them. Paths of files are not taken here: they would be read with the node owner's rights.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from kowalski.node.control import Emit, Verb
from kowalski.node.http.events import EVENT_STREAM, open_events
from kowalski.node.http.exchange import Exchange, HttpError
from kowalski.node.http.faces.words import http_error
from kowalski.node.http.routing import Route
from kowalski.node.http.verb_files import body_of, with_contents, with_files
from kowalski.protocol.errors import KowalskiError

Reply = dict[str, object]
OUTPUT_BYTES_MAX = 8 * 1024 * 1024
"""Of what a verb says on its way, where it is kept for one answer."""

CHANGES_S = 1.0
TICK_S = 5.0
FOLLOWING = frozenset({"submit", "attach"})
"""Verbs that tell of what goes on without whoever listens."""

WATCHED = ("status", "peers", "tasks", "topology")
"""Verbs whose rows are told to those who watch the mesh, as they change."""


@dataclass(frozen=True, slots=True)
class VerbRoute:
    """`query` names the numbers that may be given behind the path; `status` is that of success."""

    method: str
    path: str
    verb: str
    summary: str
    query: tuple[str, ...] = ()
    status: int = 200


VERB_ROUTES = (
    VerbRoute("GET", "/status", "status", "What this node is and does"),
    VerbRoute("GET", "/peers", "peers", "Who is in the mesh, and how busy"),
    VerbRoute("GET", "/topology", "topology", "Round trips between the peers"),
    VerbRoute("GET", "/tasks", "tasks", "The latest tasks", ("limit",)),
    VerbRoute("GET", "/tasks/{task}", "task", "Everything about one"),
    VerbRoute("GET", "/tasks/{task}/events", "attach", "Follow one, by server-sent events"),
    VerbRoute("GET", "/tasks/{task}/files", "files", "What its cells left"),
    VerbRoute("GET", "/tasks/{task}/trace", "trace", "Its journal"),
    VerbRoute("GET", "/tasks/{task}/explain", "explain", "Why each piece of it went where"),
    VerbRoute("POST", "/tasks/dry-run", "dry_run", "Where a task would go now; nothing is begun"),
    VerbRoute("DELETE", "/tasks/{task}", "cancel", "Stop one, wherever it runs"),
    VerbRoute("POST", "/tasks/{task}/cancel", "cancel", "The same"),
    VerbRoute("POST", "/tasks/{task}/resume", "resume", "Go on with one"),
    VerbRoute("POST", "/run", "run", "Run one program on the best peer"),
    VerbRoute("POST", "/fold", "fold", "A text shortened to a budget of tokens"),
    VerbRoute("POST", "/unfold", "unfold", "The original of a fold"),
    VerbRoute("POST", "/tokens", "tokens", "How many tokens a text is for a model"),
    VerbRoute("POST", "/folds", "folds", "The folds nearest to a question"),
    VerbRoute("GET", "/catalogue", "models", "The models of all peers, and how each is doing"),
    VerbRoute("POST", "/catalogue/pull", "pull", "Fetch a model to the disk of a peer"),
    VerbRoute("POST", "/catalogue/load", "load", "Load a model, over several devices if need be"),
    VerbRoute("POST", "/catalogue/preview", "preview", "In which ways a model could be split"),
    VerbRoute("POST", "/catalogue/unload", "unload", "Take a model out of memory"),
    VerbRoute("POST", "/embed", "embed", "Vectors of texts"),
    VerbRoute("GET", "/doctor", "doctor", "What keeps this machine from being a good node"),
    VerbRoute("POST", "/invite", "invite", "A line that lets another device join"),
    VerbRoute("POST", "/revoke", "revoke", "Put a member out of the mesh"),
    VerbRoute("POST", "/drain", "drain", "Take no more work, and hand over what is here"),
    VerbRoute("POST", "/undrain", "undrain", "Take work again"),
)


class MeshRoutes:
    def __init__(self, verbs: Mapping[str, Verb], scratch: Path) -> None:
        self._verbs = verbs
        self._scratch = scratch

    def routes(self) -> tuple[Route, ...]:
        """A route for each verb that this node has."""
        offered = [self._route(one) for one in VERB_ROUTES if one.verb in self._verbs]
        return (
            *offered,
            Route(
                "POST",
                "/tasks",
                self._submit,
                "Give the mesh a task",
                "Mesh",
                partial(body_of, "submit"),
                stream=EVENT_STREAM,
            ),
            Route("GET", "/events", self._watch, "The mesh as it changes, by events", "Mesh"),
        )

    def _route(self, one: VerbRoute) -> Route:
        async def handle(exchange: Exchange, parts: dict[str, str]) -> None:
            body = await exchange.json() if one.method == "POST" else {}
            numbers = _numbers(exchange, one.query)
            await self._perform(exchange, one.verb, {**body, **numbers, **parts}, one.status)

        body = partial(body_of, one.verb)
        return Route(
            one.method, one.path, handle, one.summary, "Mesh", body, one.query, EVENT_STREAM
        )

    async def _submit(self, exchange: Exchange, _parts: dict[str, str]) -> None:
        body = await exchange.json()
        follows = _accepts_events(exchange)
        asked = {"follow": follows, **body}
        await self._perform(exchange, "submit", asked, 200 if asked["follow"] else 202)

    async def perform(self, verb: str, asked: Reply, emit: Emit) -> Reply:
        """Do a verb for an agent: texts come along, and nothing is read from files.

        Raises:
            HttpError: it was refused, or failed.
        """
        async with with_files(verb, asked, self._scratch) as asked_with:
            return await with_contents(await _raising_http(self._verbs[verb](asked_with, emit)))

    # --- verbs ------------------------------------------------------------------------------------

    async def _perform(self, exchange: Exchange, name: str, asked: Reply, status: int) -> None:
        if _accepts_events(exchange) or name == "attach":
            await self._as_events(exchange, name, asked)
            return
        said = SaidOnTheWay()
        result = await self.perform(name, asked, said.hear)
        cut = {"is_cut": True} if said.is_cut else {}
        await exchange.answer_json({**result, **said.outputs(), **cut}, status)

    async def _as_events(self, exchange: Exchange, name: str, asked: Reply) -> None:
        """Each thing that is said under its kind, then `done` or `error`."""
        exchange.is_endless = name in FOLLOWING
        async with open_events(exchange) as send:

            async def emit(said: Reply) -> None:
                await send(str(said.get("kind", "")), said)

            try:
                with exchange.until_stopping():
                    result = await self.perform(name, asked, emit)
                await send("done", result)
            except HttpError as error:
                await send("error", _told(error))

    # --- watching ---------------------------------------------------------------------------------

    async def _watch(self, exchange: Exchange, _parts: dict[str, str]) -> None:
        """Rows of the mesh, whole at first, then those that changed, once a second at most.

        A `tick` tells now and then that the rows are as they are: a page sees no comments.
        """
        known: dict[tuple[str, str], object] = {}
        exchange.is_endless = True
        ticked_at = trio.current_time()
        async with open_events(exchange) as send:
            try:
                while True:
                    now = {row: value async for row, value in self._rows()}
                    for (what, key), value in changes(known, now):
                        await send(what, {"key": key, "value": value})
                    if not known:
                        await send("ready", {})
                    known = now
                    if trio.current_time() >= ticked_at + TICK_S:
                        ticked_at = trio.current_time()
                        await send("tick", {})
                    with exchange.until_stopping():
                        await trio.sleep(CHANGES_S)
            except HttpError as error:
                await send("error", _told(error))

    async def _rows(self) -> AsyncIterator[tuple[tuple[str, str], object]]:
        for verb in WATCHED:
            if verb not in self._verbs:
                continue
            result = await _raising_http(self._verbs[verb]({}, _unheard))
            rows = result.get(verb)
            if not isinstance(rows, list):
                yield (verb, ""), result
                continue
            for row in rows:
                key = row.get("peer") or row.get("task") if isinstance(row, dict) else None
                yield (verb, str(key)), row


def changes(
    before: Mapping[tuple[str, str], object], now: Mapping[tuple[str, str], object]
) -> Iterable[tuple[tuple[str, str], object]]:
    """The rows of `now` that `before` did not have so, and None for those that are gone."""
    yield from ((row, value) for row, value in now.items() if before.get(row) != value)
    yield from ((row, None) for row in before if row not in now)


class SaidOnTheWay:
    """What a verb says on its way, kept for its one answer: the output of a program."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._bytes = 0
        self.is_cut = False
        """Whether there was more than is kept."""

    async def hear(self, said: Reply) -> None:
        await trio.lowlevel.checkpoint()
        if said.get("kind") != "output":
            return
        text = str(said.get("text", ""))
        self._bytes += len(text)
        if self._bytes > OUTPUT_BYTES_MAX:
            self.is_cut = True
            return
        self._texts.setdefault(str(said.get("stream")), []).append(text)

    def outputs(self) -> dict[str, str]:
        """By stream."""
        return {stream: "".join(texts) for stream, texts in self._texts.items()}


def _told(error: HttpError) -> Reply:
    told = {"message": error.message, "code": error.code, "status": error.status}
    return {"error": told}


async def _unheard(_said: Reply) -> None:
    await trio.lowlevel.checkpoint()


def _accepts_events(exchange: Exchange) -> bool:
    return "text/event-stream" in exchange.request.headers.get("accept", "")


def _numbers(exchange: Exchange, names: tuple[str, ...]) -> Reply:
    """Raises HttpError: 400, one of them is no number."""
    query = exchange.request.query
    found: Reply = {}
    for name in names:
        if name in query:
            if not query[name].isascii() or not query[name].isdigit():
                raise HttpError(400, "invalid_request", f"{name}: a number")
            found[name] = int(query[name][:9])
    return found


async def _raising_http(work: Awaitable[Reply]) -> Reply:
    try:
        return await work
    except KowalskiError as error:
        raise http_error(error) from error
