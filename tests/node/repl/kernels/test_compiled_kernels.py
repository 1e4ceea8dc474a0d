"""Rust, Go and Java: a cell is a program, from its source to its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from kowalski.node.repl.kernel import start_kernel
from kowalski.node.repl.kernel_images import text_of
from kowalski.node.repl.languages import LANGUAGES
from kowalski.node.repl.limits import SessionLimits
from kowalski.node.repl.seam import Answer, Scene
from kowalski.protocol.errors import RequestFailedError
from tests.node.repl.rooms import Talk, kernel_source, real_host, sandbox_for, talk_to

pytestmark = [pytest.mark.real, pytest.mark.trio]

PROGRAMS = {
    "rust": (
        "use std::process::Command;\n"
        "fn main() {\n"
        "    let words: Vec<String> = std::env::args().skip(1).collect();\n"
        '    let asked = Command::new("llm_query").args(&words).output().unwrap();\n'
        '    print!("{}", String::from_utf8_lossy(&asked.stdout));\n'
        "    std::process::exit(3);\n"
        "}\n"
    ),
    "go": (
        "package main\n"
        'import ("fmt"; "os"; "os/exec")\n'
        "func main() {\n"
        '    said, _ := exec.Command("llm_query", os.Args[1:]...).Output()\n'
        "    fmt.Print(string(said))\n"
        "    os.Exit(3)\n"
        "}\n"
    ),
    "java": (
        "import java.util.*;\n"
        "public class Asker {\n"
        "    public static void main(String[] args) throws Exception {\n"
        '        List<String> words = new ArrayList<>(List.of("llm_query"));\n'
        "        words.addAll(List.of(args));\n"
        "        Process asked = new ProcessBuilder(words).start();\n"
        "        System.out.print(new String(asked.getInputStream().readAllBytes()));\n"
        "        System.exit(3);\n"
        "    }\n"
        "}\n"
    ),
}
SNIPPETS = {
    "rust": "use std::collections::HashMap;\nlet m: HashMap<i32, i32> = HashMap::new();\n"
    'println!("{}", m.len() + 42);',
    "go": 'import "fmt"\nfmt.Println(6 * 7)',
    "java": "import java.util.*;\nSystem.out.println(List.of(42).get(0));",
}
WRONG = {"rust": 'let x: i32 = "a";', "go": "x := ", "java": 'int x = "a";'}


@pytest.mark.parametrize("language", PROGRAMS)
async def test_a_program_is_compiled_run_and_asks(language: str) -> None:
    async with talk_to(language) as cell:
        scene = Scene("asker", ("what", "is it"))
        ran = await cell(PROGRAMS[language], timeout_s=60, scene=scene)
        assert (ran.status, ran.exit_code) == ("error", 3), (ran.error, ran.stderr)
        assert ran.stdout == b"WHAT IS IT\n"
        assert (await cell(SNIPPETS[language], timeout_s=60)).stdout == b"42\n"
        wrong = await cell(WRONG[language], timeout_s=60)
        assert (wrong.status, wrong.error) == ("error", "it does not compile")
        assert b"main." in wrong.stderr.lower()
        assert b"/cells/" not in wrong.stderr


async def test_what_was_compiled_is_used_again_in_another_session(tmp_path: Path) -> None:
    sandbox = sandbox_for("rust")
    folder = tmp_path / "compiled"
    async with real_host(sandbox=sandbox, compiled_path=folder) as host:
        first = Talk(await host.open("rust", {}, 0))
        assert (await first(SNIPPETS["rust"])).stdout == b"42\n"
        (kept,) = folder.iterdir()
        # Whatever is there is what runs: nothing was compiled again.
        kept.chmod(0o755)
        kept.write_text("#!/bin/sh\necho kept")
        second = Talk(await host.open("rust", {}, 0))
        assert (await second(SNIPPETS["rust"])).stdout == b"kept\n"


async def test_a_session_that_ran_something_before_leaves_nothing_for_others(
    tmp_path: Path,
) -> None:
    sandbox = sandbox_for("rust")
    folder = tmp_path / "compiled"
    async with real_host(sandbox=sandbox, compiled_path=folder) as host:
        cell = Talk(await host.open("rust", {}, 0))
        await cell(SNIPPETS["rust"])
        before = list(folder.iterdir())
        await cell('println!("another");')
        assert list(folder.iterdir()) == before


async def test_a_program_reads_what_it_is_given_and_its_files_stay(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("some words")
    async with talk_to("rust") as cell:
        code = (
            "use std::io::Read;\n"
            "let mut all = String::new();\n"
            "std::io::stdin().read_to_string(&mut all)?;\n"
            'std::fs::write("out", all.to_uppercase())?;'
        )
        written = await cell(code, scene=Scene(stdin=tmp_path / "in"))
        assert written.status == "ok", written.stderr
        again = await cell('print!("{}", std::fs::read_to_string("out")?);')
        assert again.stdout == b"SOME WORDS"
        (artefact,) = (await cell.session.collect(files_max=5, bytes_max=1000)).files
        assert (artefact.name, artefact.data) == ("out", b"SOME WORDS")


async def test_an_endless_program_is_interrupted_and_the_session_goes_on() -> None:
    async with talk_to("rust") as cell:
        stopped = await cell("loop {}", timeout_s=1.5)
        assert (stopped.status, stopped.session_alive) == ("timeout", True)
        final = 'std::process::Command::new("FINAL").arg("done").status()?;'
        assert (await cell(final)).answer == Answer("done", ready=True)


async def test_a_compiler_that_does_not_start_is_told_in_its_own_words() -> None:
    text = text_of(LANGUAGES["rust"].kernel)
    words = ("sh", "-c", "echo 'no room for the compiler' >&2; exit 3")
    broken = text.replace('VERSION = ("rustc", "--version")', f"VERSION = {words}")
    assert broken != text
    kernels = {"broken": compile(broken, "<broken>", "exec")}
    async with kernel_source(kernels=kernels) as source:
        with pytest.raises(RequestFailedError, match="sh ended with 3: no room for the compiler"):
            await start_kernel(source, "broken", limits=SessionLimits(), slot=0, timeout_s=60)
