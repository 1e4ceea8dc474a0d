"""Programs with arguments, really run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kowalski.node.program_arguments import with_arguments
from kowalski.protocol.errors import ConfigError

ARGUMENTS = ("a b", "it's", 'say "hi"', "$HOME", "\n", "\\", "")
AS_PYTHON = f"{list(ARGUMENTS)!r}\n"


def python(code: str) -> str:
    given = with_arguments("python", code, ARGUMENTS)
    done = subprocess.run(
        [sys.executable, "-"], input=given, capture_output=True, text=True, timeout=30, check=False
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "code",
    [
        "import sys\nprint(sys.argv[1:])",
        "from __future__ import annotations\nimport sys\nprint(sys.argv[1:])\n",
        (
            '"""What it does."""\nfrom __future__ import (\n    annotations,\n)\n'
            "from __future__ import division\nimport sys\nprint(sys.argv[1:])\n"
        ),
    ],
)
def test_a_python_program_finds_its_arguments(code: str) -> None:
    assert python(code) == AS_PYTHON


@pytest.mark.parametrize("code", ["print(", "x = 1\x00", "(" * 5000])
def test_a_program_that_is_no_python_still_says_so_itself(code: str) -> None:
    assert with_arguments("python", code, ("x",)).endswith(code)


def test_a_bash_program_finds_its_arguments() -> None:
    code = with_arguments("bash", 'printf "<%s>" "$@"', ARGUMENTS)
    done = subprocess.run(
        ["bash", "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "".join(f"<{one}>" for one in ARGUMENTS)


@pytest.mark.parametrize("language", ["python", "bash", "js"])
def test_a_program_without_arguments_stays_as_it_is(language: str) -> None:
    assert with_arguments(language, "code", ()) == "code"


def test_a_language_that_takes_none_is_said_so() -> None:
    with pytest.raises(ConfigError, match="programs in js cannot be given arguments yet"):
        with_arguments("js", "code", ("x",))
