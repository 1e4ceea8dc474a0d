"""Files of a verb over HTTP: those that it reads come along as text, those that it leaves go back.

A path would be read with the node owner's rights, so that nobody may give one here.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trio

from kowalski.node.control_messages import REQUESTS
from kowalski.node.http.exchange import HttpError

Json = dict[str, object]

LISTS: Mapping[str, str] = {"submit": "context", "dry_run": "context", "run": "files"}
"""By verb: the field that lists files, each with a name and a text here."""

_TEXT: Json = {"type": "string"}
_NAMED_TEXT: Json = {
    "type": "object",
    "properties": {"name": _TEXT, "text": _TEXT},
    "required": ["name", "text"],
}

CONTENT_BYTES_MAX = 8 * 1024 * 1024
"""Of all files in one reply."""


def body_of(verb: str) -> Json:
    """The JSON Schema of what a verb is asked over HTTP: as anywhere, but for its files."""
    model = REQUESTS.get(verb)
    if model is None:
        return {}
    schema: Json = model.model_json_schema(ref_template="#/$defs/{model}")
    # A reference would be read from the root of the whole document.
    inlined = _inlined(schema, schema.pop("$defs", {}))
    assert isinstance(inlined, dict)
    properties = inlined.get("properties", {})
    properties.pop("path", None)
    for name in {LISTS.get(verb), "stdin"} & properties.keys():
        properties[name] = _TEXT if name == "stdin" else {"type": "array", "items": _NAMED_TEXT}
    return {key: value for key, value in inlined.items() if key != "title"}


def _inlined(schema: object, shared: object) -> Any:  # noqa: ANN401 any JSON
    """`schema` with what it refers to put in; requests do not nest in themselves."""
    match schema:
        case {"$ref": str(reference)} if isinstance(shared, dict):
            return _inlined(shared[reference.rpartition("/")[2]], shared)
        case dict():
            return {key: _inlined(value, shared) for key, value in schema.items()}
        case list():
            return [_inlined(value, shared) for value in schema]
        case _:
            return schema


@asynccontextmanager
async def with_files(verb: str, asked: Json, scratch: Path) -> AsyncIterator[Json]:
    """What to ask the verb: texts that came along lie in files for the length of the block.

    Raises:
        HttpError: a path was given, or a file that is no `{name, text}`.
    """
    if "path" in asked:
        raise HttpError(400, "unsupported", "path: files are not read over HTTP")
    field = LISTS.get(verb)
    if field is None:
        yield asked
        return
    with TemporaryDirectory(prefix="http-", dir=scratch) as folder:
        given = asked.get(field, [])
        if not isinstance(given, list):
            raise HttpError(400, "invalid_request", f"{field}: a list of {{name, text}}")
        kept: Json = {
            field: [await _keep(Path(folder), n, one, field) for n, one in enumerate(given)]
        }
        if asked.get("stdin") is not None:
            text = asked["stdin"]
            if not isinstance(text, str):
                raise HttpError(400, "invalid_request", "stdin: a text")
            kept["stdin"] = await _write(Path(folder) / "stdin", text)
        yield {**asked, **kept}


async def _keep(folder: Path, number: int, one: object, field: str) -> Json:
    match one:
        case {"name": str(name), "text": str(text), **others} if not others:
            return {"name": name, "path": await _write(folder / str(number), text)}
        case _:
            raise HttpError(400, "invalid_request", f"{field}: each has a name and a text")


async def _write(path: Path, text: str) -> str:
    await trio.Path(path).write_bytes(text.encode(errors="replace"))
    return str(path)


async def with_contents(result: Json) -> Json:
    """`result` with its `files` in it, as base64, in place of where they lie on this machine."""
    rows = result.get("files")
    if not isinstance(rows, list):
        return result
    left = CONTENT_BYTES_MAX
    told: list[Json] = []
    for row in rows:
        told.append({name: value for name, value in row.items() if name != "path"})
        if row.get("path") is None:
            continue
        if row["bytes"] > left:
            told[-1]["error"] = f"more than a reply holds: {CONTENT_BYTES_MAX} bytes of all files"
            continue
        left -= row["bytes"]
        content = await trio.Path(row["path"]).read_bytes()
        told[-1]["base64"] = base64.b64encode(content).decode("ascii")
    return {**result, "files": told}
