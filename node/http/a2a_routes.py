"""Agent2Agent over HTTP: the agent card, and tasks by JSON-RPC, with streams as events."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from kowalski.node import a2a
from kowalski.node.http.events import open_events
from kowalski.node.http.exchange import Exchange, HttpError, Request
from kowalski.node.http.mcp_routes import Perform
from kowalski.node.http.routing import Route
from kowalski.node.mcp import progress_words

Reply = dict[str, object]


class A2aRoutes:
    """`offers` are the verbs of this node."""

    def __init__(
        self,
        perform: Perform,
        offers: frozenset[str],
        *,
        unix_clock: Callable[[], float],
        needs_token: bool,
    ) -> None:
        self._perform = perform
        self._offers = offers
        self._unix_clock = unix_clock
        self._needs_token = needs_token

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", a2a.CARD_PATH, self._card, "A2A: who this agent is", "Agents"),
            Route("POST", "/a2a", self._post, "A2A: tasks by JSON-RPC", "Agents"),
        )

    async def _card(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        host = exchange.request.headers.get("host", "127.0.0.1:4171")
        await exchange.answer_json(a2a.card(f"http://{host}", needs_token=self._needs_token))

    async def _post(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        number: object = None
        try:
            body = await exchange.json()
            number = body.get("id")
            a2a.check_version(_version(exchange.request))
            number, asked = a2a.read(body)
            match asked:
                case a2a.Asked(streams=True):
                    await self._stream(exchange, number, "submit", asked.request)
                case a2a.About("follow", task):
                    await self._stream(exchange, number, "attach", {"task": task})
                case _:
                    told = await self._done(asked)
                    await exchange.answer_json(a2a.success(number, told))
        except a2a.A2aError as error:
            await exchange.answer_json(a2a.failure(number, error))
        except HttpError as error:
            if exchange.has_begun:
                raise
            await exchange.answer_json(a2a.failure(number, _a2a_error(error)))

    async def _done(self, asked: a2a.Read) -> Reply:
        now = self._unix_clock()
        match asked:
            case a2a.Asked():
                request = {**asked.request, "follow": asked.waits}
                return {"task": a2a.task(await self._perform("submit", request, _unheard), now)}
            case a2a.About("cancel", task):
                told = await self._perform("cancel", {"task": task}, _unheard)
                a2a.check_cancelled(told)
                return a2a.task(told, now)
            case a2a.About(_, task):
                return a2a.task(await self._perform("task", {"task": task}, _unheard), now)
            case a2a.Listed(limit):
                rows = (await self._perform("tasks", {"limit": limit}, _unheard))["tasks"]
                assert isinstance(rows, list)
                tasks = [a2a.task(row, now) for row in rows]
                size = len(tasks)
                return {"tasks": tasks, "nextPageToken": "", "pageSize": size, "totalSize": size}

    async def _stream(self, exchange: Exchange, number: object, verb: str, request: Reply) -> None:
        if verb not in self._offers:
            raise a2a.A2aError(a2a.UNSUPPORTED, "tasks cannot be followed here")
        task = str(request.get("task", ""))
        async with open_events(exchange) as send:

            async def hear(event: Reply) -> None:
                nonlocal task
                if event.get("kind") == "submitted":
                    task = str(event["task"])
                    row = {"task": task, "state": "waiting"}
                    first = {"task": a2a.task(row, self._unix_clock())}
                    await send("", a2a.success(number, first))
                elif task and (words := progress_words(event)):
                    update = a2a.working(task, words, self._unix_clock())
                    await send("", a2a.success(number, update))

            try:
                with exchange.until_stopping():
                    told = await self._perform(verb, request, hear)
            except HttpError as error:
                await send("", a2a.failure(number, _a2a_error(error)))
                return
            for event in a2a.ending(told, self._unix_clock()):
                await send("", a2a.success(number, event))


def _version(request: Request) -> str | None:
    return request.headers.get("a2a-version") or request.query.get("A2A-Version")


def _a2a_error(error: HttpError) -> a2a.A2aError:
    codes = {"unknown": a2a.TASK_NOT_FOUND, "bad_json": -32700}
    code = codes.get(error.code, a2a.INVALID_PARAMS if error.status < 500 else a2a.INTERNAL)
    return a2a.A2aError(code, error.message)


async def _unheard(_event: Reply) -> None:
    await trio.lowlevel.checkpoint()
