"""fold with a model, and unfold, against a scripted node; `test_cli_work` has the plain fold."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from kowalski.node.cli import cli
from tests.node.scripted_node import Script
from tests.node.test_cli_work import invoke, request_of

HANDLE = "ab" * 32
BY_MODEL = Script(
    {
        "text": "short", "source_tokens": 9, "tokens": 3, "algorithm": "model-checked/1",
        "name": "desk", "handle": HANDLE, "facts": 7, "facts_told": 2, "facts_kept": 6,
        "made_up": 1, "failure": "no_peer: nobody",
    }
)  # fmt: skip


def test_a_fold_by_a_model_tells_of_its_facts_and_its_handle(tmp_path: Path) -> None:
    ended, node = invoke(tmp_path, {"fold": BY_MODEL}, "fold", "-", "-m", "*", stdin=b"long")
    assert (ended.exit_code, ended.stdout) == (0, "short\n")
    assert ended.stderr == (
        "9 to 3 tokens by model-checked/1 on desk\n"
        "6 of 7 facts kept, 2 of them by the model; 1 made-up sentences left out\n"
        "without the model in places: no_peer: nobody\n"
        f"kowalski-node unfold {HANDLE}\n"
    )
    assert request_of(node)["model"] == "*"


def test_unfold_writes_the_original_as_it_was(tmp_path: Path) -> None:
    text = Script({"handle": HANDLE, "bytes": 6, "text": "one\r\n\ttwo"})
    ended, node = invoke(tmp_path, {"unfold": text}, "unfold", HANDLE.upper())
    assert (ended.exit_code, ended.stdout_bytes) == (0, b"one\r\n\ttwo")
    assert request_of(node) == {"handle": HANDLE, "timeout_s": 60.0}
    kept = tmp_path / "blob"
    kept.write_bytes(b"\xff\x00\r\n")
    long = Script({"handle": HANDLE, "files": [{"name": HANDLE, "bytes": 4, "path": str(kept)}]})
    out = tmp_path / "out"
    ended, _ = invoke(tmp_path, {"unfold": long}, "unfold", HANDLE, "-o", str(out))
    assert (ended.exit_code, out.read_bytes()) == (0, b"\xff\x00\r\n")
    assert ended.stderr == f"4 bytes in {out}\n"


@pytest.mark.parametrize(
    "args",
    [
        ("unfold",),
        ("unfold", "-n", "3"),
        ("unfold", "-q", "x", "-o", "file"),
        ("unfold", HANDLE, "-b", "5"),
        ("unfold", HANDLE, "-n", "3"),
        ("unfold", HANDLE, "-q", "x", "-b", "0"),
    ],
)
def test_a_mistake_is_told_without_asking_any_node(tmp_path: Path, args: tuple[str, ...]) -> None:
    ended = CliRunner().invoke(cli, [*args, "--data-dir", str(tmp_path)])
    assert ended.exit_code == 2, ended.output
    assert "Error: " in ended.stderr


def test_an_output_that_cannot_be_written_is_a_mistake(tmp_path: Path) -> None:
    text = Script({"handle": HANDLE, "text": "x"})
    ended, _ = invoke(tmp_path, {"unfold": text}, "unfold", HANDLE, "-o", "/nonexistent/out")
    assert ended.exit_code == 2
    assert "/nonexistent/out: no such file or directory" in ended.stderr


def test_a_question_without_a_handle_shows_the_nearest_folds(tmp_path: Path) -> None:
    row = {"handle": HANDLE, "name": "notes.txt", "bytes": 9, "score": 1.0, "text": "one\ntwo"}
    told = {"folds": [row], "searched": 4, "model": "tiny-embed", "why_not": ""}
    ended, node = invoke(tmp_path, {"folds": Script(told)}, "unfold", "-q", "who?", "-n", "1")
    assert (ended.exit_code, ended.stdout) == (0, f"{HANDLE}  1.00  notes.txt\n    one\n    two\n")
    assert ended.stderr == "1 of 4 folds, by words and tiny-embed\n"
    assert request_of(node) == {"question": "who?", "count": 1, "timeout_s": 60.0}
    lost = Script({**told, "folds": [], "model": None, "why_not": "tiny-embed: no_peer"})
    ended, _ = invoke(tmp_path, {"folds": lost}, "unfold", "-q", "who?")
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert ended.stderr == "0 of 4 folds, by words\nwithout vectors: tiny-embed: no_peer\n"


def test_tokens_are_told_and_whether_somebody_counted(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("the valve is shut")
    told = {"tokens": 4, "is_estimate": False, "name": "desk", "model": "m:3b", "backend": "vllm"}
    ended, node = invoke(tmp_path, {"tokens": Script(told)}, "tokens", str(file), "-m", "m")
    assert (ended.exit_code, ended.stdout) == (0, "4\n")
    assert ended.stderr == "as desk counts for m:3b\n"
    assert request_of(node) == {"model": "m", "path": str(file)}
    guess = Script({**told, "is_estimate": True, "name": None})
    ended, node = invoke(tmp_path, {"tokens": guess}, "tokens", "-", "-m", "m", stdin=b"a text")
    assert (ended.exit_code, ended.stdout) == (0, "4\n")
    assert "an estimate" in ended.stderr
    assert request_of(node) == {"model": "m", "text": "a text"}


def test_a_fold_may_be_held_to_the_tokens_of_a_model(tmp_path: Path) -> None:
    _, node = invoke(tmp_path, {"fold": BY_MODEL}, "fold", "-", "--fits", "m", stdin=b"long")
    assert request_of(node)["fits"] == "m"
