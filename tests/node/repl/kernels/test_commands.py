"""The bridge as commands: the same from bash, from a program of any language, from a pipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from kowalski.node.repl.seam import Answer, SubCall, SubCallResult
from tests.node.repl.rooms import talk_to, until

pytestmark = [pytest.mark.real, pytest.mark.trio]


async def test_a_question_is_its_words_or_what_is_piped_in() -> None:
    async with talk_to("bash") as cell:
        assert (await cell("llm_query -m small what is it")).stdout == b"WHAT IS IT\n"
        assert cell.batches == [(SubCall("what is it", "small"),)]
        assert (await cell("printf 'a\\nb' | llm_query")).stdout == b"A\nB\n"
        assert (await cell('x=$(llm_query "grüße"); echo "<$x>"')).stdout == "<GRÜSSE>\n".encode()
        assert (await cell("rlm_query deep")).stdout == b"DEEP\n"
        assert cell.batches[-1][0].kind == "rlm"


async def test_a_batch_is_asked_at_once_and_answered_in_order() -> None:
    async with talk_to("bash") as cell:
        assert (await cell("llm_query_batched a b 'c d'")).stdout == b"A\nB\nC D\n"
        assert [call.prompt for call in cell.batches[0]] == ["a", "b", "c d"]
        assert (await cell("printf 'x\\ny\\n' | llm_query_batched -z")).stdout == b"X\0Y\0"
        assert (await cell("llm_query_batched </dev/null")).stdout == b""


async def test_an_error_is_told_on_stderr_and_by_the_exit_code() -> None:
    async with talk_to("bash") as cell:
        cell.reply = lambda call: (
            SubCallResult(error="no peer") if call.prompt == "b" else SubCallResult(text="ok")
        )
        failed = await cell("llm_query b")
        assert (failed.exit_code, failed.stdout, failed.stderr) == (1, b"", b"LLMError: no peer\n")
        mixed = await cell("llm_query_batched a b c")
        assert (mixed.exit_code, mixed.stdout) == (1, b"ok\n\nok\n")
        assert (await cell("llm_query -x")).exit_code == 2


async def test_questions_from_many_processes_at_once_do_not_mix() -> None:
    async with talk_to("bash") as cell:
        cell.reply_delay_s = 0.05
        outcome = await cell(
            "for i in 1 2 3 4 5 6; do llm_query q$i > $i & done; wait; cat 1 2 3 4 5 6\n"
            "printf '%s\\n' a b c | xargs -P 3 -I {} llm_query x{} | sort"
        )
        assert outcome.stdout == b"Q1\nQ2\nQ3\nQ4\nQ5\nQ6\nXA\nXB\nXC\n"


async def test_what_was_folded_comes_back_byte_for_byte() -> None:
    async with talk_to("bash") as cell:
        cell.reply = lambda call: SubCallResult(
            text='["old"]' if call.kind == "history" else "no newline"
        )
        assert (await cell("unfold h1")).stdout == b"no newline"
        assert (cell.batches[0][0].kind, cell.batches[0][0].prompt) == ("unfold", "h1")
        assert (await cell("history")).stdout == b'["old"]'


async def test_a_waiting_question_is_interrupted() -> None:
    async with talk_to("bash") as cell, trio.open_nursery() as nursery:
        cell.reply_delay_s = 1000

        async def interrupt() -> None:
            await until(lambda: bool(cell.batches))
            cell.session.interrupt()

        nursery.start_soon(interrupt)
        assert (await cell("x=1; llm_query a")).status == "cancelled"
        cell.reply_delay_s = 0
        assert (await cell("echo $x; llm_query b; ls $KOWALSKI_ASK")).stdout.split() == [
            b"1",
            b"B",
            b"bin",
            b"inputs",
            b"pipe",
        ]


async def test_inputs_are_printed_by_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("first")
    (tmp_path / "b").write_text("second")
    async with talk_to("bash", inputs={"a": tmp_path / "a"}) as cell:
        assert (await cell("context")).stdout == b"first"
    async with talk_to("bash", inputs={n: tmp_path / n for n in "ab"}) as cell:
        assert (await cell("context")).stdout == b"a\nb\n"
        assert (await cell("context b; context -p a")).stdout == b"second/inputs/a\n"
        missing = await cell("context c")
        assert missing.exit_code == 1
        assert b"there is no input c; there are:\na\nb\n" in missing.stderr


async def test_the_answer_is_a_variable_or_what_final_is_told() -> None:
    async with talk_to("bash") as cell:
        assert (await cell("true")).answer is None
        assert (await cell("answer='a draft'")).answer == Answer("a draft", ready=False)
        assert (await cell("answer_ready=1")).answer == Answer("a draft", ready=True)
        assert (await cell("FINAL 42 is it")).answer == Answer("42 is it", ready=True)
        assert (await cell("list=(a b); FINAL_VAR list")).answer == Answer("a b", ready=True)
        assert (await cell("echo piped | FINAL")).answer == Answer("piped\n", ready=True)
        assert b"no variable nothing" in (await cell("FINAL_VAR nothing")).stderr


async def test_variables_are_shown_without_ours() -> None:
    async with talk_to("bash") as cell:
        await cell("x=1; declare -A map=([k]=v)")
        shown = (await cell("SHOW_VARS")).stdout
        assert shown == b'-A map=([k]="v" )\n-- x="1"\n'
