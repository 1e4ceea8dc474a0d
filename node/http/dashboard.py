"""The dashboard: a page, its style and its script, from the wheel; nothing comes from elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import resources

from kowalski.node.control import Verb
from kowalski.node.http.exchange import Exchange, Headers, HttpError, Response
from kowalski.node.http.faces.words import http_error
from kowalski.node.http.routing import Route
from kowalski.protocol.errors import KowalskiError

PAGES = {
    "index.html": "text/html; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

HEADERS: Headers = (
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-cache"),
)


class Dashboard:
    def __init__(self, verbs: Mapping[str, Verb]) -> None:
        self._verbs = verbs
        folder = resources.files("kowalski.node.http") / "pages"
        self._files = {name: (folder / name).read_bytes() for name in PAGES}

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", "/", self._index),
            Route("GET", "/pages/{name}", self._page),
            Route("POST", "/pages/invite", self._invite),
        )

    async def _index(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        await self._file(exchange, "index.html")

    async def _page(self, exchange: Exchange, parts: Mapping[str, str]) -> None:
        if parts["name"] not in self._files:
            raise HttpError(404, "not_found", "there is no such page")
        await self._file(exchange, parts["name"])

    async def _file(self, exchange: Exchange, name: str) -> None:
        data = self._files[name]
        mark = f'"{hashlib.blake2b(data, digest_size=8).hexdigest()}"'
        if exchange.request.headers.get("if-none-match") == mark:
            await exchange.answer(Response(304, b"", PAGES[name], (("etag", mark), *HEADERS)))
            return
        await exchange.answer(Response(200, data, PAGES[name], (("etag", mark), *HEADERS)))

    async def _invite(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        """A join line, and as a QR code that a phone or another device reads."""

        async def unheard(_said: dict[str, object]) -> None:
            """An invite says nothing on its way."""

        try:
            invite = await self._verbs["invite"]({}, unheard)
        except KowalskiError as error:
            raise http_error(error) from error
        import segno  # noqa: PLC0415 few nodes are asked for a picture

        line = str(invite["line"])
        qr = segno.make_qr(line, error="m").svg_data_uri(scale=4, border=2)
        await exchange.answer_json({**invite, "qr": qr})
