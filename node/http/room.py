"""The HTTP server of a node: what it listens on, who may speak to it, and what answers."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import structlog
import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.mesh import Mesh
from kowalski.node.control import Verb
from kowalski.node.http import docs, metrics
from kowalski.node.http.a2a_routes import A2aRoutes
from kowalski.node.http.access import COOKIE, Access, is_preflight
from kowalski.node.http.completions import Completions
from kowalski.node.http.connection import Limits
from kowalski.node.http.dashboard import Dashboard
from kowalski.node.http.exchange import Exchange, HttpError, Response, dump
from kowalski.node.http.faces import anthropic, ollama, openai_replies
from kowalski.node.http.mcp_routes import McpRoutes
from kowalski.node.http.mesh_routes import MeshRoutes
from kowalski.node.http.model_routes import ModelRoutes
from kowalski.node.http.pull_routes import PullRoutes
from kowalski.node.http.routing import Route, Router
from kowalski.node.http.server import HttpServer, open_http_server
from kowalski.node.http.tokens import TokenFile
from kowalski.node.services.copies import CopyRoom
from kowalski.node.services.placed_work import PlacedWork
from kowalski.node.services.submitter import SubmitterRoom
from kowalski.node.tracing import NoTracing, Tracing

log = structlog.get_logger(__name__)

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
COOKIE_S = 180 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Place:
    """Where to listen, and what pages and names are let in besides those of this machine."""

    host: str
    port: int
    token_path: Path
    scratch_path: Path
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()

    @property
    def is_local(self) -> bool:
        return self.host in LOOPBACK


@dataclass(frozen=True, slots=True)
class Rooms:
    """What answers are made of."""

    mesh: Mesh
    work: PlacedWork
    store: ContentStore
    submitter: SubmitterRoom
    verbs: Mapping[str, Verb]
    unix_clock: Callable[[], float]
    tracing: Tracing = field(default_factory=NoTracing)
    copies: CopyRoom | None = None
    """Those kept for others, where there are any."""


class HttpRoom:
    """Checks, routes and counts each exchange."""

    def __init__(self, place: Place, rooms: Rooms) -> None:
        self._place = place
        self._mesh = rooms.mesh
        self._tracing = rooms.tracing
        self._tokens = TokenFile(place.token_path)
        seen = metrics.Seen(
            rooms.mesh, rooms.submitter, rooms.work.placing.dispatch, copies=rooms.copies
        )
        self.metrics = metrics.NodeMetrics(seen)
        completions = Completions(rooms.work, rooms.store, on_end=self.metrics.call_ended)
        models = ModelRoutes(rooms.mesh, rooms.work, completions, rooms.unix_clock, rooms.verbs)
        mesh_routes = MeshRoutes(rooms.verbs, place.scratch_path)
        agents = A2aRoutes(
            mesh_routes.perform,
            frozenset(rooms.verbs),
            unix_clock=rooms.unix_clock,
            needs_token=not place.is_local,
        )
        told = (
            *models.routes(),
            *PullRoutes(rooms.verbs).routes(),
            *mesh_routes.routes(),
            *McpRoutes(mesh_routes.perform).routes(),
            *agents.routes(),
            *self._own_routes(),
        )
        self._told = told
        self._docs = docs.page(told).encode()
        self._router = Router((*told, *self._pages(), *Dashboard(rooms.verbs).routes()))

    async def handle(self, exchange: Exchange) -> None:
        """See `exchange.Handler`."""
        began = trio.current_time()
        route = "none"
        exchange.tell = self._tell
        try:
            try:
                access = self._access()
                exchange.extra.extend(cors := access.cors(exchange.request))
                access.check(exchange.request)
                if await self._takes_token(exchange):
                    return
                if cors and is_preflight(exchange.request):
                    await exchange.answer(Response(204))
                    return
                route = self._router.name_of(exchange.request)
                await self._traced(route, exchange)
            except HttpError as error:
                if exchange.has_begun:
                    raise
                await self._tell(exchange, error)
        finally:
            after_s = trio.current_time() - began
            method = exchange.request.method[:16]
            status = exchange.status if exchange.has_begun else 499  # hung up before an answer
            self.metrics.request_answered(route, method, status, after_s)

    async def _traced(self, route: str, exchange: Exchange) -> None:
        request = exchange.request
        with self._tracing.serving(f"{request.method[:16]} {route}", request.headers):
            await self._router(exchange)

    def _access(self) -> Access:
        token = None if self._place.is_local else self._tokens.current()
        return Access(token, self._place.hosts, self._place.origins)

    async def _takes_token(self, exchange: Exchange) -> bool:
        """A browser shows the token once, in the address; from then on in a cookie."""
        request = exchange.request
        if request.method != "GET" or (token := request.query.get("token")) is None:
            return False
        # A path with two slashes in front would be another machine's name.
        headers = [("location", "/" + quote(request.path.lstrip("/")))]
        if hmac.compare_digest(token.encode(), (self._tokens.current() or "").encode()):
            kept = f"{COOKIE}={token}; Max-Age={COOKIE_S}; Path=/; HttpOnly; SameSite=Strict"
            headers.append(("set-cookie", kept))
        await exchange.answer(Response(303, headers=tuple(headers)))
        return True

    async def _tell(self, exchange: Exchange, error: HttpError) -> None:
        """An error in the language of whoever uses such a path."""
        path = exchange.request.path
        if path.startswith("/v1/messages"):
            said = anthropic.error_answer(error)
        elif path.startswith("/api/"):
            said = ollama.error_answer(error)
        else:
            said = openai_replies.error_answer(error)
        await exchange.answer_json(said, error.status, headers=error.headers)

    # --- what the server itself answers -----------------------------------------------------------

    def _own_routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", "/healthz", self._healthz, "Whether the process is well", "Node"),
            Route("GET", "/readyz", self._readyz, "Whether the node can be given work", "Node"),
            Route("GET", "/metrics", self._metrics, "For Prometheus", "Node"),
            Route("GET", "/openapi.json", self._openapi_json, "This, for programs", "Node"),
        )

    def _pages(self) -> tuple[Route, ...]:
        return (Route("GET", "/docs", self._docs_page),)

    async def _healthz(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        await exchange.answer_json({"status": "ok"})

    async def _readyz(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        trust = self._mesh.trust
        if trust.is_revoked:
            raise HttpError(503, "revoked", "this node was put out of its mesh")
        peers = sum(one.is_routable for one in self._mesh.facts())
        await exchange.answer_json({"status": "ready", "peers": peers})

    async def _metrics(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        said = self.metrics.expose()
        await exchange.answer(Response(200, said, metrics.CONTENT_TYPE))

    async def _openapi_json(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        await exchange.answer(Response(200, self._openapi))

    @cached_property
    def _openapi(self) -> bytes:
        return dump(docs.openapi(self._told))

    async def _docs_page(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        await exchange.answer(Response(200, self._docs, "text/html; charset=utf-8"))


@asynccontextmanager
async def open_http_room(
    place: Place, rooms: Rooms, *, limits: Limits | None = None
) -> AsyncIterator[tuple[HttpServer, int]]:
    """Serve for the length of the block; gives the server and its port.

    Raises:
        ConfigError: the address is taken, or the token file cannot be made.
    """
    if not place.is_local:
        TokenFile(place.token_path).ensure()
    place.scratch_path.mkdir(mode=0o700, parents=True, exist_ok=True)
    room = HttpRoom(place, rooms)
    opened = open_http_server(place.host, place.port, room.handle, limits=limits)
    async with opened as (server, port):
        room.metrics.connections.set_function(lambda: server.connections)
        log.info("http", host=place.host, port=port, needs_token=not place.is_local)
        yield server, port
