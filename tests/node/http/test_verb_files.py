"""Files of a verb that come along as text, and go back as content."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from kowalski.node.control_messages import REQUESTS
from kowalski.node.http.exchange import HttpError
from kowalski.node.http.verb_files import CONTENT_BYTES_MAX, body_of, with_contents, with_files

pytestmark = pytest.mark.trio

TEXT: dict[str, object] = {"name": "a.txt", "text": "größe \ud800"}


@pytest.mark.parametrize("verb", sorted(REQUESTS))
async def test_what_a_verb_takes_is_told_without_references_and_without_paths(verb: str) -> None:
    told = body_of(verb)
    assert told["type"] == "object"
    words = json.dumps(told)
    assert "$ref" not in words
    assert '"path"' not in words
    assert body_of("nosuch") == {}


async def test_files_are_told_as_texts() -> None:
    properties: dict[str, Any] = body_of("run")["properties"]  # type: ignore[assignment]
    assert properties["stdin"] == {"type": "string"}
    assert set(properties["files"]["items"]["required"]) == {"name", "text"}


@pytest.mark.parametrize(("verb", "field"), [("submit", "context"), ("run", "files")])
async def test_texts_lie_in_files_for_as_long_as_the_verb_may_read_them(
    tmp_path: Path, verb: str, field: str
) -> None:
    asked: dict[str, Any]
    async with with_files(verb, {field: [TEXT, TEXT], "x": 1}, tmp_path) as asked:
        assert asked["x"] == 1
        assert [one["name"] for one in asked[field]] == ["a.txt", "a.txt"]
        assert [Path(one["path"]).read_text() for one in asked[field]] == ["größe ?"] * 2
    assert list(tmp_path.iterdir()) == []


async def test_what_a_program_reads_comes_along_too(tmp_path: Path) -> None:
    async with with_files("run", {"stdin": "12"}, tmp_path) as asked:
        assert Path(str(asked["stdin"])).read_text() == "12"


@pytest.mark.parametrize(
    ("verb", "asked"),
    [
        ("fold", {"path": "/etc/passwd"}),
        ("submit", {"context": [{"name": "a", "path": "/etc/passwd"}]}),
        ("submit", {"context": [{**TEXT, "path": "/etc/passwd"}]}),
        ("run", {"files": "/etc/passwd"}),
        ("run", {"files": [{"name": "a"}]}),
        ("run", {"stdin": 5}),
    ],
)
async def test_a_path_is_refused_and_so_is_what_is_no_text(
    tmp_path: Path, verb: str, asked: dict[str, object]
) -> None:
    with pytest.raises(HttpError) as refused:
        async with with_files(verb, asked, tmp_path):
            pass
    assert refused.value.status == 400
    assert list(tmp_path.iterdir()) == []


async def test_files_that_were_left_go_back_as_content_and_tell_no_path(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\x00\xff")
    rows = [
        {"name": "a", "bytes": 2, "path": str(tmp_path / "a")},
        {"name": "large", "bytes": CONTENT_BYTES_MAX, "path": str(tmp_path / "nosuch")},
        {"name": "lost", "bytes": 1, "error": "nobody has it"},
    ]
    told: dict[str, Any] = await with_contents({"files": rows, "x": 1})
    first, second, third = told["files"]
    assert first == {"name": "a", "bytes": 2, "base64": base64.b64encode(b"\x00\xff").decode()}
    assert (second["name"], "more than a reply holds" in second["error"]) == ("large", True)
    assert third == {"name": "lost", "bytes": 1, "error": "nobody has it"}
    assert told["x"] == 1
    assert await with_contents({"x": 1}) == {"x": 1}
