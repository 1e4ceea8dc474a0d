from __future__ import annotations

from pathlib import Path

import pytest
import trio

from kowalski.node.repl.seam import Answer, SubCallResult
from tests.node.repl.rooms import talk_to, until

pytestmark = [pytest.mark.real, pytest.mark.trio]


async def test_declarations_of_every_kind_stay_across_cells() -> None:
    async with talk_to("js") as cell:
        await cell("let a = 1; const b = 2; var c = 3; d = 4; function f() { return a + 10 }")
        assert (await cell("a = 5; [f(), b, c, d]")).value == "[ 15, 2, 3, 4 ]"


async def test_an_error_shows_its_place_and_keeps_what_was_before() -> None:
    async with talk_to("js") as cell:
        failed = await cell("x = 1\nnull.y")
        assert (failed.status, failed.exit_code) == ("error", 1)
        assert "TypeError" in (failed.error or "")
        assert "<cell 1>:2" in (failed.error or "")
        assert (await cell("x")).value == "1"
        assert "SyntaxError" in ((await cell("let let")).error or "")


async def test_output_goes_where_it_should() -> None:
    async with talk_to("js") as cell:
        outcome = await cell("console.log('out'); console.error('err'); undefined")
        assert (outcome.stdout, outcome.stderr, outcome.value) == (b"out\n", b"err\n", None)


async def test_sub_calls_block_and_fail_as_errors() -> None:
    async with talk_to("js") as cell:
        assert (await cell("llm_query('a', 'small')")).value == "'A'"
        assert cell.batches[0][0].model == "small"
        cell.reply = lambda call: (
            SubCallResult(error="no peer") if call.prompt == "b" else SubCallResult(text="ok")
        )
        batch = "llm_query_batched(['a', 'b']).map((r) => r instanceof LLMError ? r.message : r)"
        assert (await cell(batch)).value == "[ 'ok', 'no peer' ]"
        told = (await cell("llm_query('b')")).error or ""
        assert told.startswith("LLMError: no peer")
        assert "LLMError: frame of" in ((await cell("llm_query('x'.repeat(9e6))")).error or "")
        assert (await cell("await llm_query('a')")).status == "ok"


async def test_promises_are_awaited_and_timers_run() -> None:
    async with talk_to("js") as cell:
        assert (await cell("Promise.resolve(6)")).value == "6"
        outcome = await cell("await new Promise((done) => setTimeout(done, 20)); console.log('x')")
        assert outcome.stdout == b"x\n"


@pytest.mark.parametrize(
    "busy",
    [
        "while (true) {}",
        "await new Promise(() => setTimeout(() => {}, 1e9))",
        "require('child_process').execSync('sleep 60')",
    ],
)
async def test_an_interrupted_cell_keeps_the_state(busy: str) -> None:
    async with talk_to("js") as cell:
        await cell("let x = 3")
        stopped = await cell(f"console.log('begun'); {busy}", timeout_s=1.0)
        assert (stopped.status, stopped.session_alive) == ("timeout", True)
        assert stopped.stdout == b"begun\n"
        assert (await cell("x")).value == "3"


async def test_a_waiting_query_is_interrupted() -> None:
    async with talk_to("js") as cell, trio.open_nursery() as nursery:
        cell.reply_delay_s = 1000

        async def interrupt() -> None:
            await until(lambda: bool(cell.batches))
            cell.session.interrupt()

        nursery.start_soon(interrupt)
        assert (await cell("x = 1; llm_query('a')")).status == "cancelled"
        cell.reply_delay_s = 0
        assert (await cell("[x, llm_query('b')]")).value == "[ 1, 'B' ]"


async def test_an_exit_ends_the_cell_and_a_death_the_session() -> None:
    async with talk_to("js") as cell:
        ended = await cell("x = 1; process.exit(3)")
        assert (ended.exit_code, ended.session_alive) == (3, True)
        assert (await cell("x")).value == "1"
        died = await cell("process.kill(process.pid, 'SIGKILL')")
        assert (died.status, died.exit_code, died.session_alive) == ("died", 137, False)


async def test_the_answer_and_reserved_names_are_as_in_python() -> None:
    async with talk_to("js") as cell:
        assert (await cell("answer.content = 'draft'")).answer == Answer("draft", ready=False)
        assert (await cell("FINAL = 1; FINAL")).value == "1"
        assert (await cell("FINAL({k: 1})")).answer == Answer('{"k":1}', ready=True)


async def test_inputs_are_the_context(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("grüße")
    async with talk_to("js", inputs={"a": tmp_path / "a"}) as cell:
        assert (await cell("context")).value == "'grüße'"
    async with talk_to("js", inputs={"a": tmp_path / "a", "b": tmp_path / "a"}) as cell:
        assert (
            await cell("[Object.keys(context), context.b]")
        ).value == "[ [ 'a', 'b' ], 'grüße' ]"


async def test_chance_follows_the_seed() -> None:
    found = []
    for seed in (1, 1, 2):
        async with talk_to("js", seed=seed) as cell:
            found.append((await cell("Math.random()")).value)
    assert found[0] == found[1] != found[2]


async def test_a_later_cell_may_declare_the_same_again() -> None:
    async with talk_to("js") as cell:
        await cell("const fs = require('fs'); let n = 1; class C { a() { return 1 } }")
        again = await cell("const fs = require('fs'); let n = 2; class C { a() { return 2 } }")
        assert again.status == "ok", again.error
        assert (await cell("[typeof fs.readFileSync, n, new C().a()]")).value == (
            "[ 'function', 2, 2 ]"
        )
        text = await cell("s = `\nconst x = 1;\nlet y = 2;`; s.length + s")
        assert "const x = 1" in (text.value or "")


async def test_what_a_cell_declares_beside_an_await_stays() -> None:
    async with talk_to("js") as cell:
        await cell("const x = await Promise.resolve(4); let {a, b} = {a: x, b: await 2}")
        assert (await cell("[x, a, b]")).value == "[ 4, 4, 2 ]"
        assert (await cell("const x = await 5; x + 1")).value == "6"
        assert (await cell("x")).value == "5"


async def test_modules_can_be_imported() -> None:
    async with talk_to("js") as cell:
        await cell("import fs, {join as j} from 'path'\nimport * as os from 'os'")
        found = await cell("[fs.join('a', 'b'), j('c', 'd'), typeof os.cpus]")
        assert found.value == "[ 'a/b', 'c/d', 'function' ]", found.error
        assert "<cell 3>:3" in ((await cell("import x from 'fs'\n\nnull.y")).error or "")


async def test_the_rest_of_the_bridge_is_there() -> None:
    async with talk_to("js") as cell:
        cell.reply = lambda call: SubCallResult(
            text='["old"]' if call.kind == "history" else f"{call.kind}:{call.prompt}"
        )
        assert (await cell("[rlm_query('q'), unfold('h'), history]")).value == (
            "[ 'rlm:q', 'unfold:h', [ 'old' ] ]"
        )
        await cell("list = [1, 2, 3]; n = 1")
        assert (await cell("SHOW_VARS()")).value == "'list: Array, 3 long\\nn: number'"
        assert (await cell("FINAL_VAR('list')")).answer == Answer("[1,2,3]", ready=True)
        assert "no variable nothing; there are: list, n" in (
            (await cell("FINAL_VAR('nothing')")).error or ""
        )
