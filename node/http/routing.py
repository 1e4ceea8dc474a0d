"""Which handler answers a request: methods and paths, with parts that are given to it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from kowalski.node.http.exchange import Exchange, HttpError, Request

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

    def name_of(self, request: Request) -> str:
        """The path of the route that answers `request`, as it is written; `none` without one."""
        for pattern, route in self._patterns:
            if pattern.fullmatch(request.path):
                return route.path
        return "none"

    async def __call__(self, exchange: Exchange) -> None:
        """Answer with the first route that fits.

        Raises:
            HttpError: 404, or 405 where the path is known with other methods.
        """
        method, path = exchange.request.method, exchange.request.path
        allowed: set[str] = set()
        for pattern, route in self._patterns:
            if (match := pattern.fullmatch(path)) is None:
                continue
            if route.method == method or (method == "HEAD" and route.method == "GET"):
                await route.handler(exchange, match.groupdict())
                return
            allowed.add(route.method)
        if not allowed:
            raise HttpError(404, "not_found", f"nothing is at {path[:200]}; see /docs")
        if method == "OPTIONS":
            await exchange.answer_json({}, headers=(("allow", ", ".join(sorted(allowed))),))
            return
        allow = ", ".join(sorted(allowed))
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
