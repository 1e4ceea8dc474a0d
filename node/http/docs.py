"""What the HTTP server offers, told in OpenAPI 3.1 and on a page, from the routes themselves."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping

from kowalski import __version__
from kowalski.node.http.routing import Route

_PART = re.compile(r"\{(\w+)\+?\}")


def openapi(routes: Iterable[Route]) -> dict[str, object]:
    """The document of `/openapi.json`."""
    paths: dict[str, dict[str, object]] = {}
    schemas: dict[str, object] = {"Error": _ERROR}
    for route in routes:
        if route.summary:
            path = _PART.sub(r"{\1}", route.path)
            paths.setdefault(path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "kowalski-node",
            "version": __version__,
            "summary": "An agent mesh on the devices you own",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas,
        },
        "security": [{}, {"token": []}],
    }


def _operation(route: Route, schemas: dict[str, object]) -> dict[str, object]:
    """`schemas` takes what the operation's refer to."""
    kinds = ("application/json", *filter(None, (route.stream.partition(";")[0],)))
    operation: dict[str, object] = {
        "summary": route.summary,
        "tags": [route.tag],
        "operationId": _operation_id(route),
        "responses": {
            "200": {"description": "It was done", "content": {kind: {} for kind in kinds}},
            "default": {
                "description": "It was not, and why",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    }
    parameters: list[dict[str, object]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PART.findall(route.path)
    ]
    parameters += [
        {"name": name, "in": "query", "schema": {"type": "number"}} for name in route.query
    ]
    if parameters:
        operation["parameters"] = parameters
    if route.reference:
        operation["externalDocs"] = {"url": route.reference}
    if route.method == "POST":
        schema = {"type": "object", **route.body()}
        parts = schema.pop("$defs", {})
        assert isinstance(parts, Mapping), "definitions are by name"
        schemas.update(parts)
        operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return operation


def _operation_id(route: Route) -> str:
    words = re.findall(r"[A-Za-z0-9]+", route.path)
    return "_".join((route.method.lower(), *words))


_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "code": {"type": "string"},
            },
        }
    },
}


def page(routes: Iterable[Route]) -> str:
    """The page of `/docs`: no scripts, nothing from elsewhere."""
    sections: dict[str, list[str]] = {}
    for route in routes:
        if route.summary:
            cells = (html.escape(one) for one in (route.method, route.path, route.summary))
            method, path, summary = cells
            row = f"<tr><td>{method}</td><td><code>{path}</code></td><td>{summary}</td></tr>"
            sections.setdefault(route.tag, []).append(row)
    tables = "".join(
        f"<h2>{html.escape(tag)}</h2><table>{''.join(rows)}</table>"
        for tag, rows in sections.items()
    )
    return _PAGE.replace("{{tables}}", tables).replace("{{version}}", html.escape(__version__))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>kowalski-node: HTTP</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 52rem; margin: 2rem auto; padding: 0 1rem }
td { padding: .2rem 1rem .2rem 0; vertical-align: top }
code { font-size: .95em }
</style></head><body>
<h1>kowalski-node {{version}}</h1>
<p>Each request goes to the peer best placed for it. Errors are JSON with a message for people and
a code for programs. From other machines than this a token is needed:
<code>authorization: Bearer TOKEN</code>. The same in OpenAPI:
<a href="/openapi.json">openapi.json</a>.</p>
{{tables}}
</body></html>
"""
