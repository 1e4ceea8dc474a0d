"""Which handler answers a request: methods and paths, with parts that are given to it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from kowalski.node.http.exchange import Exchange, HeadToldError, HttpError, Request

RoutedHandler = Callable[[Exchange, dict[str, str]], Awaitable[None]]
"""Answers one exchange, given the parts of its path that the route names."""


@dataclass(frozen=True, slots=True)
class Route:
    """`path` as in `/tasks/{task}/events`; `{name+}` also takes slashes.

    `summary` and `tag` are for those who read `/docs`; a route without them is not told of there.
    `body` makes the JSON Schema of what it takes, whose `$defs` are by names that no other schema
    uses; `query` names the numbers that it takes behind a question mark. `stream` is the type of
    an answer in pieces, where there is one, and `reference` where its answers are described.
    """

    method: str
    path: str
    handler: RoutedHandler
    summary: str = ""
    tag: str = ""
    body: Callable[[], Mapping[str, object]] = dict
    query: tuple[str, ...] = ()
    stream: str = ""
    reference: str = ""


class Router:
    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._patterns = tuple((_pattern(route.path), route) for route in self.routes)
        self._plain = {path: self._search(path) for path in self._plain_paths()}
        """What fits the paths that have no parts, which are most of what is asked for."""

    def _plain_paths(self) -> Iterable[str]:
        return {route.path for route in self.routes if "{" not in route.path}

    def _search(self, path: str) -> tuple[tuple[Route, dict[str, str]], ...]:
        matches = ((pattern.fullmatch(path), route) for pattern, route in self._patterns)
        return tuple((route, match.groupdict()) for match, route in matches if match is not None)

    def _fitting(self, path: str) -> tuple[tuple[Route, dict[str, str]], ...]:
        """The routes with this path, in their order, and its parts."""
        found = self._plain.get(path)
        return self._search(path) if found is None else found

    def name_of(self, request: Request) -> str:
        """The path of the route that answers `request`, as it is written; `none` without one."""
        return next((route.path for route, _ in self._fitting(request.path)), "none")

    async def __call__(self, exchange: Exchange) -> None:
        """Answer with the first route that fits; HEAD as GET, whose body then stays here.

        Raises:
            HttpError: 404, or 405 where the path is known with other methods.
        """
        method, path = exchange.request.method, exchange.request.path
        fitting = self._fitting(path)
        for route, parts in fitting:
            if route.method == method or (method == "HEAD" and route.method == "GET"):
                with suppress(HeadToldError):
                    await route.handler(exchange, dict(parts))
                return
        if not fitting:
            raise HttpError(404, "not_found", f"nothing is at {path[:200]}; see /docs")
        methods = {route.method for route, _ in fitting}
        allow = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
        if method == "OPTIONS":
            await exchange.answer_json({}, headers=(("allow", allow),))
            return
        raise HttpError(
            405, "method_not_allowed", f"{path[:200]} takes {allow}", headers=(("allow", allow),)
        )


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"(\{\w+\+?\})", path)
    return re.compile("".join(_part(part) for part in parts))


def _part(part: str) -> str:
    if not part.startswith("{"):
        return re.escape(part)
    name = part[1:-1]
    return f"(?P<{name[:-1]}>.+)" if name.endswith("+") else f"(?P<{name}>[^/]+)"
