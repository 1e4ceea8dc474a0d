"""Ruby and Perl: the same promises as the other sessions keep."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from kowalski.node.repl.seam import Answer, SubCallResult
from tests.node.repl.rooms import talk_to, until

pytestmark = [pytest.mark.real, pytest.mark.trio]


@pytest.mark.parametrize(
    ("language", "first", "second", "said"),
    [
        ("ruby", "x = 5\ndef f(a) = a + 1", "puts x + f(1)", b"7\n"),
        ("perl", "my $x = 5;\nmy @l = (1, 2);\nsub f { $_[0] + 1 }", "print $x + f(1) + @l", b"9"),
    ],
)
async def test_variables_and_functions_stay_even_after_an_error(
    language: str, first: str, second: str, said: bytes
) -> None:
    async with talk_to(language) as cell:
        failed = await cell(f"{first}\n{'raise' if language == 'ruby' else 'die'} 'oops'")
        assert (failed.status, failed.exit_code) == ("error", 1)
        assert "oops" in (failed.error or "")
        assert "<cell 1>" in (failed.error or "")
        assert (await cell(second)).stdout == said


@pytest.mark.parametrize("language", ["ruby", "perl"])
async def test_an_exit_ends_the_cell_and_a_death_the_session(language: str) -> None:
    async with talk_to(language) as cell:
        ended = await cell("exit 3")
        assert (ended.exit_code, ended.session_alive) == (3, True)
        assert (await cell("exit 0")).status == "ok"
        died = await cell("Process.kill(9, $$)" if language == "ruby" else "kill 9, $$; sleep 5")
        assert (died.status, died.exit_code, died.session_alive) == ("died", 137, False)


@pytest.mark.parametrize("language", ["ruby", "perl"])
async def test_an_interrupted_cell_keeps_the_state(language: str) -> None:
    forever = {"ruby": "x = 3; puts 'go'; loop {}", "perl": "our $x = 3; print 'go'; while (1) {}"}
    async with talk_to(language) as cell:
        stopped = await cell(forever[language], timeout_s=0.5)
        assert (stopped.status, stopped.session_alive) == ("timeout", True)
        assert stopped.stdout.strip() == b"go"
        shown = await cell("print x" if language == "ruby" else "print $x")
        assert shown.stdout == b"3"


@pytest.mark.parametrize("language", ["ruby", "perl"])
async def test_queries_batches_and_errors(language: str) -> None:
    batch = {
        "ruby": "print llm_query_batched(%w[a b]).map(&:to_s).join(',')",
        "perl": "print join(',', llm_query_batched(['a', 'b']))",
    }
    async with talk_to(language) as cell:
        assert (await cell("print llm_query('grüße', 'small')")).stdout == "GRÜSSE".encode()
        assert cell.batches[0][0].model == "small"
        cell.reply = lambda call: (
            SubCallResult(error="no peer") if call.prompt == "b" else SubCallResult(text="ok")
        )
        assert (await cell(batch[language])).stdout == b"ok,no peer"
        failed = await cell("llm_query('b')")
        assert failed.status == "error"
        assert "LLMError: no peer" in (failed.error or "")


@pytest.mark.parametrize("language", ["ruby", "perl"])
async def test_a_waiting_query_is_interrupted(language: str) -> None:
    async with talk_to(language) as cell, trio.open_nursery() as nursery:
        cell.reply_delay_s = 1000

        async def interrupt() -> None:
            await until(lambda: bool(cell.batches))
            cell.session.interrupt()

        nursery.start_soon(interrupt)
        assert (await cell("llm_query('a')")).status == "cancelled"
        cell.reply_delay_s = 0
        assert (await cell("print llm_query('b')")).stdout == b"B"


async def test_context_answer_and_variables_in_ruby(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("text")
    async with talk_to("ruby", inputs={"a": tmp_path / "a"}) as cell:
        assert (await cell("context.upcase")).value == '"TEXT"'
        drafted = await cell("list = [1, 2]; answer['content'] = 'draft'; SHOW_VARS()")
        assert drafted.value == "context: 4 bytes\nlist: Array, 2 long"
        assert drafted.answer == Answer("draft", ready=False)
        assert (await cell("FINAL_VAR(:list)")).answer == Answer("[1,2]", ready=True)
        assert "there are" in ((await cell("FINAL_VAR(:nothing)")).error or "")
    async with talk_to("ruby", inputs=dict.fromkeys("xy", tmp_path / "a")) as cell:
        assert (await cell("context['y'] + context.keys.join")).value == '"textxy"'


async def test_context_answer_and_variables_in_perl(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("text")
    async with talk_to("perl", inputs={"a": tmp_path / "a"}) as cell:
        assert (await cell("print uc context()")).stdout == b"TEXT"
        drafted = await cell("my @l = (1);\nmy %h = (a => 1);\n$answer->{content} = 'draft';")
        assert drafted.answer == Answer("draft", ready=False)
        assert (await cell("print SHOW_VARS()")).stdout == b"%h\n@l"
        assert (await cell("FINAL_VAR('@l')")).answer == Answer("[1]", ready=True)
        assert "there are" in ((await cell("FINAL_VAR('nothing')")).error or "")


@pytest.mark.parametrize(("language", "draw"), [("ruby", "x = rand"), ("perl", "my $x = rand;")])
async def test_chance_and_digest_follow_the_seed(language: str, draw: str) -> None:
    found = []
    for seed in (1, 1, 2):
        async with talk_to(language, seed=seed) as cell:
            found.append((await cell(draw)).variables_digest)
    assert found[0] == found[1] != found[2]
