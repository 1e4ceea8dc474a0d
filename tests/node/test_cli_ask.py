"""ask and embed against a scripted node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from kowalski.node.cli import cli
from tests.node.scripted_node import Script
from tests.node.test_cli_work import invoke, request_of

USAGE = {"prompt_tokens": 50, "completion_tokens": 7, "cached_tokens": 40, "is_estimate": True}


def test_ask_streams_the_text_and_says_who_wrote_it(tmp_path: Path) -> None:
    script = Script(
        {"text": "hello", "model": "m", "name": "desk", "usage": USAGE},
        (
            {"kind": "thinking", "text": "hm"},
            {"kind": "delta", "text": "hel"},
            {"kind": "delta", "text": "lo"},
        ),
    )
    ended, node = invoke(
        tmp_path, {"ask": script}, "ask", "why", "-s", "be brief", "--temperature", "0",
        "--max-tokens", "9",
    )  # fmt: skip
    assert (ended.exit_code, ended.stdout) == (0, "hello\n")
    assert ended.stderr == "hmm on desk; about 50 (40 cached) + 7 tokens\n"
    assert request_of(node) == {
        "prompt": "why",
        "system": "be brief",
        "temperature": 0.0,
        "max_tokens": 9,
        "timeout_s": 600.0,
    }


def test_ask_passes_on_how_to_answer(tmp_path: Path) -> None:
    schema, picture = tmp_path / "s.json", tmp_path / "p.png"
    schema.write_text('{"type":"integer"}')
    picture.write_bytes(b"png")
    _, node = invoke(
        tmp_path, {"ask": Script({"text": "7"})}, "ask", "why", "--stop", "a", "--stop", "b",
        "--seed", "7", "--top-p", "0.5", "--schema", str(schema), "--image", str(picture),
        "--thinking", "low", "-m", "m",
    )  # fmt: skip
    assert request_of(node) == {
        "prompt": "why",
        "model": "m",
        "stop": ["a", "b"],
        "seed": 7,
        "top_p": 0.5,
        "json_schema": '{"type":"integer"}',
        "images": [str(picture)],
        "thinking": "low",
        "timeout_s": 600.0,
    }


def test_ask_prints_an_answer_that_came_in_one_piece(tmp_path: Path) -> None:
    ended, _ = invoke(tmp_path, {"ask": Script({"text": "hello"})}, "ask", "why")
    assert ended.stdout == "hello\n"


EMBEDDED = Script({"embeddings": [[0.5]], "model": "m"})


def test_embed_takes_texts_or_lines_and_prints_json(tmp_path: Path) -> None:
    ended, node = invoke(tmp_path, {"embed": EMBEDDED}, "embed", "-m", "m", "a b", "c")
    assert json.loads(ended.stdout)["embeddings"] == [[0.5]]
    assert request_of(node)["texts"] == ["a b", "c"]
    _, by_stdin = invoke(
        tmp_path, {"embed": EMBEDDED}, "embed", "-m", "m", "-", stdin=b"one\n\n two\n"
    )
    assert request_of(by_stdin)["texts"] == ["one", " two"]
    file = tmp_path / "lines"
    file.write_text("x\ny")
    _, by_file = invoke(tmp_path, {"embed": EMBEDDED}, "embed", "-m", "m", "-f", str(file))
    assert request_of(by_file)["texts"] == ["x", "y"]


@pytest.mark.parametrize(
    "args",
    [
        ("ask", ""),
        ("ask",),
        ("ask", "a", "--temperature", "-1"),
        ("ask", "a", "--top-p", "2"),
        ("ask", "a", "--seed", "-1"),
        ("ask", "a", "--thinking", "hard"),
        ("ask", "a", "--schema", "/nonexistent"),
        ("embed", "a"),
        ("embed", "-m", "m", "a", "-f", "b"),
        ("embed", "-m", "m", "--dimensions", "0", "a"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_told_without_asking_any_node(tmp_path: Path, args: tuple[str, ...]) -> None:
    ended = CliRunner().invoke(cli, [*args, "--data-dir", str(tmp_path)], input=b"text")
    assert ended.exit_code == 2, ended.output
    assert ended.stdout == ""
    assert "Error: " in ended.stderr
