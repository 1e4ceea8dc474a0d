"""`--backend` as a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from kowalski.node.backends.model_files import ModelFile, is_model_file, parse_model_file
from kowalski.protocol.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "is_file"),
    [
        ("/m/Llama-3.2.Q4.gguf", True),
        ("x.GGUF?slots=2", True),
        ("http://host/x.gguf", False),
        ("host:8080", False),
        ("/m/x.gguf/v1", False),
    ],
)
def test_a_file_is_told_from_an_address(text: str, is_file: bool) -> None:
    assert is_model_file(text) is is_file


def test_options_stand_behind_the_name() -> None:
    file = parse_model_file("/m/Llama-3.2-3B.Q4_K_M.gguf?slots=4&context=16384&gpu_layers=-1")
    options = {"slots": 4, "context": 16384, "gpu_layers": -1}
    assert file == ModelFile(Path("/m/Llama-3.2-3B.Q4_K_M.gguf"), options)
    assert file.name == "Llama-3.2-3B.Q4_K_M"


def test_a_home_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert parse_model_file("~/x.gguf").path == Path("/home/me/x.gguf")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/m/x.gguf?slot=4", "backend /m/x.gguf: unknown option 'slot'; known: slots, context"),
        ("/m/x.gguf?slots=many", "slots: expected a whole number, not 'many'"),
        ("/m/x.gguf?slots=", "slots: expected a whole number, not ''"),
        ("/m/x.gguf?slots=0", "slots: expected at least 1, not 0"),
        ("/m/x.gguf?context=-1", "context: expected at least 1, not -1"),
        ("/m/x.gguf?context=123456789", "context: expected a whole number"),
    ],
)
def test_an_option_that_will_not_do_is_named(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("?", r"\?")):
        parse_model_file(text)
