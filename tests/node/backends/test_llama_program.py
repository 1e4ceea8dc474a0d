"""What the child says before it serves; serving is held in `test_llama_child.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kowalski.node.backends import llama_program
from kowalski.node.backends.llama_program import Settings


def run_child(settings: Settings, *, before: str = "") -> subprocess.CompletedProcess[str]:
    run = f"import sys; sys.exit({llama_program.__name__}.main(sys.argv[1:]))"
    program = f"{before}\nimport {llama_program.__name__}\n{run}"
    return subprocess.run(
        [sys.executable, "-c", program, settings.argument()],
        input="key\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def settings_of(path: Path) -> Settings:
    return Settings(str(path), "m", 1, 512, 512, 1, 0, sets_pooling=False)


def test_settings_travel_as_one_argument(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "a 'quoted' name.gguf")
    assert Settings(**json.loads(settings.argument())) == settings


def test_without_llama_cpp_it_says_how_to_install_it(tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['xllamacpp'] = None"
    done = run_child(settings_of(tmp_path / "x.gguf"), before=hidden)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"].endswith("pip install 'kowalski-node[llama]'")


def test_a_model_that_cannot_be_loaded_is_one_line_of_json(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="the extra [llama] is not installed")
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF nothing")
    done = run_child(settings_of(path))
    assert done.returncode == 1
    assert list(json.loads(done.stdout)) == ["error"]
