"""Gives a program the arguments that a person wrote behind its name."""

from __future__ import annotations

import ast
import shlex

from kowalski.protocol.errors import ConfigError


def with_arguments(language: str, code: str, arguments: tuple[str, ...]) -> str:
    """`code` with its arguments where it expects them.

    Raises:
        ConfigError: nobody has thought of how to do that in `language`.
    """
    if not arguments:
        return code
    match language:
        case "python":
            setting = f"import sys; sys.argv[1:] = {list(arguments)!r}"
            lines = code.split("\n")
            at = _first_free_line(code)
            return "\n".join([*lines[:at], setting, *lines[at:]])
        case "bash":
            return f"set -- {shlex.join(arguments)}\n{code}"
        case _:
            raise ConfigError(f"programs in {language} cannot be given arguments yet")


def _first_free_line(code: str) -> int:
    """How many lines must stay at the top: nothing may stand before `from __future__`."""
    try:
        statements = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 0  # it will say so itself
    futures = (
        one.end_lineno or 0
        for one in statements
        if isinstance(one, ast.ImportFrom) and one.module == "__future__"
    )
    return max(futures, default=0)
