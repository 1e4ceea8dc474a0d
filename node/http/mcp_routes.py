"""MCP over HTTP (the streamable transport): one message a request, without sessions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from kowalski.node import mcp
from kowalski.node.control import Emit
from kowalski.node.http.events import open_events
from kowalski.node.http.exchange import Exchange, HttpError, Response
from kowalski.node.http.mesh_routes import SaidOnTheWay
from kowalski.node.http.routing import Route

Reply = dict[str, object]
Perform = Callable[[str, Reply, Emit], Awaitable[Reply]]
"""Does a verb, with the texts that came along; raises HttpError."""


class McpRoutes:
    def __init__(self, perform: Perform) -> None:
        self._perform = perform

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("POST", "/mcp", self._post, "MCP: submit, run, ask and fold as tools", "Agents"),
        )

    async def _post(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        version = exchange.request.headers.get("mcp-protocol-version")
        body = await exchange.body()
        message = mcp.read(body)
        if version is not None and version not in mcp.VERSIONS:
            known = ", ".join(mcp.VERSIONS)
            wrong = f"mcp-protocol-version {version[:40]}; spoken are {known}"
            await exchange.answer_json(mcp.failure(None, mcp.INVALID_REQUEST, wrong), 400)
        elif message is None or isinstance(message, mcp.Cancelled):
            await exchange.answer(Response(202))  # who hangs up cancels
        elif isinstance(message, mcp.Call):
            await self._call(exchange, message)
        else:
            is_broken = message.get("id") is None
            await exchange.answer_json(message, 400 if is_broken else 200)

    async def _call(self, exchange: Exchange, call: mcp.Call) -> None:
        said = SaidOnTheWay()
        if call.progress is None:
            await exchange.answer_json(await self._made(call, said, said.hear))
            return
        count = 0
        async with open_events(exchange) as send:

            async def hear(event: Reply) -> None:
                nonlocal count
                await said.hear(event)
                if words := mcp.progress_words(event):
                    count += 1
                    await send("message", mcp.progress(call, count, words))

            await send("message", await self._made(call, said, hear))

    async def _made(self, call: mcp.Call, said: SaidOnTheWay, hear: Emit) -> Reply:
        try:
            told = await self._perform(call.verb, call.request, hear)
        except HttpError as error:
            return mcp.call_failed(call, f"{error.code}: {error.message}")
        return mcp.result(call, told, said.outputs())
