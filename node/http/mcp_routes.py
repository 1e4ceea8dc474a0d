"""MCP over HTTP, the streamable transport of 2025-11-25: one message a request.

A session, which is begun with each `initialize`, is for cancelling; without one all else works. A
stream is never resumed, and none is opened by GET: nothing is said here that was not asked for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import trio

from kowalski.node import mcp
from kowalski.node.control import Emit
from kowalski.node.http.events import open_events
from kowalski.node.http.exchange import Exchange, HttpError, Response
from kowalski.node.http.mcp_sessions import Session, Sessions
from kowalski.node.http.mesh_routes import SaidOnTheWay
from kowalski.node.http.routing import Route

Reply = dict[str, object]
Perform = Callable[[str, Reply, Emit], Awaitable[Reply]]
"""Does a verb, with the texts that came along; raises HttpError."""


CANCEL_S = 10.0
SESSION = "mcp-session-id"


class McpRoutes:
    def __init__(self, perform: Perform) -> None:
        self._perform = perform
        self._sessions = Sessions()

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("POST", "/mcp", self._post, "MCP: submit, run, ask and fold as tools", "Agents"),
            Route("DELETE", "/mcp", self._delete, "MCP: the end of a session", "Agents"),
        )

    async def _delete(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        name = exchange.request.headers.get(SESSION)
        if name is None:
            raise HttpError(400, "invalid_request", f"{SESSION}: missing")
        if not self._sessions.end(name):
            raise HttpError(404, "unknown", "no such session")
        await exchange.answer(Response(204))

    async def _post(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        headers = exchange.request.headers
        version = headers.get("mcp-protocol-version")
        body = await exchange.body()
        message = mcp.read(body)
        name = None if mcp.is_beginning(message) else headers.get(SESSION)
        session = Session() if name is None else self._sessions.find(name)
        if version is not None and version not in mcp.VERSIONS:
            known = ", ".join(mcp.VERSIONS)
            wrong = f"mcp-protocol-version {version[:40]}; spoken are {known}"
            await exchange.answer_json(mcp.failure(None, mcp.INVALID_REQUEST, wrong), 400)
        elif session is None:
            gone = "the session is over, or was never begun; initialize anew"
            await exchange.answer_json(mcp.failure(None, mcp.INVALID_REQUEST, gone), 404)
        elif isinstance(message, mcp.Cancelled):
            session.cancel(message.id)
            await exchange.answer(Response(202))
        elif message is None:
            await exchange.answer(Response(202))
        elif isinstance(message, mcp.Call):
            await self._call(exchange, session, message)
        elif mcp.is_beginning(message):
            begun = ((SESSION, self._sessions.open()),)
            await exchange.answer_json(message, headers=begun)
        else:
            is_broken = message.get("id") is None
            await exchange.answer_json(message, 400 if is_broken else 200)

    async def _call(self, exchange: Exchange, session: Session, call: mcp.Call) -> None:
        tasks: list[str] = []

        def note(event: Reply) -> None:
            if event.get("kind") == "submitted":
                tasks.append(str(event["task"]))

        with session.under_way(call.id) as scope:
            await self._answer(exchange, call, note)
        if not scope.cancelled_caught:
            return
        with trio.move_on_after(CANCEL_S), suppress(HttpError):
            for task in tasks:  # nobody waits for it any more, but it would go on
                await self._perform("cancel", {"task": task}, _unheard)
        if exchange.has_begun:
            await exchange.end()
        else:
            await exchange.answer(Response(202))  # what is cancelled has no reply

    async def _answer(
        self, exchange: Exchange, call: mcp.Call, note: Callable[[Reply], None]
    ) -> None:
        said = SaidOnTheWay()

        async def keep(event: Reply) -> None:
            note(event)
            await said.hear(event)

        if call.progress is None:
            await exchange.answer_json(await self._made(call, said, keep, exchange))
            return
        count = 0
        async with open_events(exchange) as send:

            async def hear(event: Reply) -> None:
                nonlocal count
                await keep(event)
                if words := mcp.progress_words(event):
                    count += 1
                    await send("message", mcp.progress(call, count, words))

            await send("message", await self._made(call, said, hear, exchange))

    async def _made(
        self, call: mcp.Call, said: SaidOnTheWay, hear: Emit, exchange: Exchange
    ) -> Reply:
        try:
            with exchange.until_stopping():
                told = await self._perform(call.verb, call.request, hear)
        except HttpError as error:
            return mcp.call_failed(call, f"{error.code}: {error.message}")
        return mcp.result(call, told, said.outputs())


async def _unheard(_event: Reply) -> None:
    await trio.lowlevel.checkpoint()
