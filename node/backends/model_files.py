"""A `--backend` that names a GGUF file in place of a server: which, and how to serve it.

Imports nothing heavy: the configuration asks it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kowalski.node.backends.options import parse_options

SUFFIX: Final = ".gguf"
OPTIONS: Final = ("slots", "context", "threads", "gpu_layers")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file and how to serve it: `/models/x.gguf?slots=4&context=16384&gpu_layers=0`."""

    path: Path
    options: Mapping[str, int]

    @property
    def name(self) -> str:
        """How the model is asked for."""
        return self.path.stem


def is_model_file(text: str) -> bool:
    """Whether a `--backend` is a file rather than an address."""
    return "://" not in text and text.partition("?")[0].lower().endswith(SUFFIX)


def parse_model_file(text: str) -> ModelFile:
    """Take a `--backend` apart that names a file.

    Raises:
        ConfigError: as `parse_options`.
    """
    path, _, query = text.partition("?")
    return ModelFile(Path(path).expanduser(), parse_options(path, query, OPTIONS))
