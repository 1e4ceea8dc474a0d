"""The commands about models against a scripted node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kowalski.protocol.errors import RequestRefusedError
from tests.node.scripted_node import Script
from tests.node.test_cli_work import invoke, request_of

LISTED = Script(
    {
        "models": [
            {
                "name": "llama3.2:3b",
                "peer_name": "desk",
                "backend": "ollama",
                "state": "warm",
                "running": 1,
                "context_tokens": 32768,
                "size_bytes": 2_019_393_189,
                "tokens_per_s": 41.5,
                "capabilities": ["chat", "tools"],
            },
            {"name": "phi4", "peer_name": "attic", "state": "cold"},
        ],
        "silent": [{"name": "cellar", "why": "no answer"}],
    }
)


@pytest.mark.parametrize("args", [("models",), ("models", "list")])
def test_models_are_a_table(tmp_path: Path, args: tuple[str, ...]) -> None:
    ended, node = invoke(tmp_path, {"models": LISTED}, *args)
    assert ended.exit_code == 0
    lines = [" ".join(line.split()) for line in ended.stdout.splitlines()]
    assert lines[1] == "llama3.2:3b desk ollama warm, 1 running 32k 2.0 GB 42 chat, tools"
    assert lines[2].startswith("phi4 attic - cold")
    assert ended.stderr == "cellar does not say: no answer\n"
    assert request_of(node) == {}


def test_words_and_options_without_a_command_are_those_of_list(tmp_path: Path) -> None:
    ended, node = invoke(tmp_path, {"models": LISTED}, "models", "llama", "--all", "--json")
    assert request_of(node) == {"query": "llama", "loadable": True}
    assert json.loads(ended.stdout)["models"][0]["name"] == "llama3.2:3b"


def test_where_there_is_none_it_says_what_to_do(tmp_path: Path) -> None:
    ended, _ = invoke(tmp_path, {"models": Script({"models": []})}, "models")
    assert ended.stdout == ""
    assert "start Ollama or exo" in ended.stderr


PULLED = Script(
    {"model": "qwen3:8b", "name": "desk", "detail": ""},
    (
        {"kind": "progress", "name": "desk", "stage": "preparing", "detail": "pulling manifest"},
        {
            "kind": "progress",
            "name": "desk",
            "stage": "downloading",
            "bytes_done": 10**9,
            "bytes_total": 2 * 10**9,
        },
    ),
)


def test_a_pull_tells_how_far_it_is_and_where_the_model_is(tmp_path: Path) -> None:
    ended, node = invoke(tmp_path, {"pull": PULLED}, "models", "pull", "qwen3:8b", "--on", "desk")
    assert (ended.exit_code, ended.stdout) == (0, "qwen3:8b ready on desk\n")
    assert "desk: preparing, pulling manifest" in ended.stderr
    assert "desk: downloading, 1.00 of 2.00 GB (50%)" in ended.stderr
    assert request_of(node) == {"model": "qwen3:8b", "on": "desk", "timeout_s": 86_400.0}


def test_a_load_explains_how_the_model_was_split(tmp_path: Path) -> None:
    loaded = Script(
        {"model": "big", "name": "desk", "detail": "split by layers over 2 devices"},
        ({"kind": "progress", "name": "desk", "stage": "loading", "bytes_done": 40,
          "bytes_total": 100, "detail": "1 Ready, 1 Loading"},),
    )  # fmt: skip
    ended, node = invoke(
        tmp_path,
        {"load": loaded},
        "models",
        "load",
        "big",
        "--sharding",
        "tensor",
        "--devices",
        "2",
    )
    assert ended.stdout == "big loaded on desk\n"
    assert "desk: loading, 40%, 1 Ready, 1 Loading" in ended.stderr
    assert "split by layers over 2 devices" in ended.stderr
    assert request_of(node)["sharding"] == "tensor"
    assert request_of(node)["devices_min"] == 2


def test_a_dry_run_shows_the_ways(tmp_path: Path) -> None:
    previewed = Script(
        {
            "model": "big",
            "explanation": "the fewest devices",
            "options": [
                {"sharding": "pipeline", "link": "ring", "devices": 2, "bytes_max": 2**34,
                 "is_chosen": True, "why_not": ""},
                {"sharding": "tensor", "link": "jaccl", "devices": 2, "why_not": "no RDMA"},
            ],
        }
    )  # fmt: skip
    ended, _ = invoke(tmp_path, {"preview": previewed}, "models", "load", "big", "--dry-run")
    assert "->  pipeline  ring   2        16.0 GiB" in ended.stdout
    assert "no RDMA" in ended.stdout
    assert ended.stderr == "big: the fewest devices\n"


def test_a_model_is_unloaded_or_deleted(tmp_path: Path) -> None:
    gone = Script({"model": "m", "name": "desk"})
    ended, node = invoke(tmp_path, {"unload": gone}, "models", "unload", "m", "--delete")
    assert ended.stdout == "m deleted on desk\n"
    assert request_of(node)["deletes"] is True
    ended, _ = invoke(tmp_path, {"unload": gone}, "models", "unload", "m", "--json")
    assert json.loads(ended.stdout)["model"] == "m"


def test_a_no_has_its_exit_code(tmp_path: Path) -> None:
    no = Script(error=RequestRefusedError("not_allowed", "the owner lets nobody"))
    ended, _ = invoke(tmp_path, {"pull": no}, "models", "pull", "m")
    assert ended.exit_code == 4
    assert "the owner lets nobody" in ended.stderr
