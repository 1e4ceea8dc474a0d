"""What programs that are run alone are told. For the rest: `kernels/test_compiled_kernels.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from kowalski.node.repl.seam import Scene
from tests.node.repl.rooms import talk_to

pytestmark = [pytest.mark.real, pytest.mark.trio]

PROGRAMS = {
    "python": "import sys\nprint(*sys.argv, sys.stdin.read(), input.__name__)",
    "bash": 'echo "$@" "$(cat)"',
    "js": "console.log(...process.argv.slice(1), require('fs').readFileSync(0, 'utf8'))",
    "perl": 'print "$0 @ARGV ", <STDIN>',
    "ruby": "puts ARGV.join(' ') + ' ' + $stdin.read",
}


@pytest.mark.parametrize("language", PROGRAMS)
async def test_a_program_finds_its_arguments_and_what_it_is_to_read(
    language: str, tmp_path: Path
) -> None:
    (tmp_path / "in").write_text("some\nwords")
    async with talk_to(language) as cell:
        scene = Scene("prog.x", ("--flag", "a b", "ü"), tmp_path / "in")
        outcome = await cell(PROGRAMS[language], scene=scene)
        assert "--flag a b ü some\nwords" in outcome.stdout.decode(), outcome.error


async def test_without_a_scene_there_is_nothing_to_read_and_no_argument() -> None:
    async with talk_to() as cell:
        assert (await cell("import sys\nsys.argv, sys.stdin.read()")).value == "([''], '')"


async def test_files_are_copied_to_where_the_program_works(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    (tmp_path / "a").chmod(0o400)
    files = {"data/a.txt": tmp_path / "a", "b": tmp_path / "a"}
    for language, code in (
        ("python", "open('data/a.txt', 'a').write('!'); print(open('data/a.txt').read())"),
        ("bash", "echo -n '!' >> data/a.txt; cat data/a.txt; echo; ls >/dev/null"),
    ):
        async with talk_to(language, files=files) as cell:
            assert (await cell(code)).stdout == b"one!\n"
    assert (tmp_path / "a").read_text() == "one"
