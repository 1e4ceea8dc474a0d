"""token: what other machines show to the HTTP server."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from kowalski.node.cli import cli


def token(data_dir: Path, *args: str) -> str:
    ended = CliRunner().invoke(cli, ["token", "--data-dir", str(data_dir), *args])
    assert ended.exit_code == 0, ended.output
    return ended.stdout.strip()


def test_the_token_is_made_once_and_anew_when_asked(tmp_path: Path) -> None:
    first = token(tmp_path)
    assert token(tmp_path) == first
    told = json.loads(token(tmp_path, "--json"))
    assert told == {"token": first, "path": str(tmp_path / "http_token")}
    assert token(tmp_path, "--rotate") != first


def test_a_file_that_holds_no_token_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "http_token").write_text("short")
    ended = CliRunner().invoke(cli, ["token", "--data-dir", str(tmp_path)])
    assert ended.exit_code == 2
    assert "token --rotate" in ended.stderr
