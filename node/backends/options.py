"""What a `--backend` says behind its `?`: whole numbers by name, such as `slots=4`.

Imports nothing heavy: the configuration asks it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl

from kowalski.protocol.errors import ConfigError

SLOTS_MAX: Final = 10_000
AT_LEAST_ONE: Final = ("slots", "context")


def parse_options(backend: str, query: str, known: Sequence[str]) -> Mapping[str, int]:
    """The options of a `backend`, which is named in what is raised.

    Raises:
        ConfigError: one that is not `known`, no whole number, or out of its bounds.
    """
    options: dict[str, int] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            words = ", ".join(known)
            raise ConfigError(f"backend {backend}: unknown option {name!r}; known: {words}")
        if not value.removeprefix("-").isdecimal() or len(value) > 8:
            raise ConfigError(f"backend {backend}: {name}: expected a whole number, not {value!r}")
        number = int(value)
        if number < 1 and name in AT_LEAST_ONE:
            raise ConfigError(f"backend {backend}: {name}: expected at least 1, not {number}")
        if name == "slots" and number > SLOTS_MAX:
            words = f"expected at most {SLOTS_MAX}, not {number}"
            raise ConfigError(f"backend {backend}: slots: {words}")
        options[name] = number
    return options
