from __future__ import annotations

import json
from pathlib import Path

import pytest

from kowalski.node.repl.seam import Answer, SubCallResult
from kowalski.protocol.messages.repl import CLOCK_READINGS_MAX, VARIABLES_MAX
from tests.node.repl.rooms import talk_to

pytestmark = [pytest.mark.real, pytest.mark.trio]


async def test_the_last_expression_is_shown_and_kept_as_underscore() -> None:
    async with talk_to() as cell:
        assert (await cell("x = 20\nx + 1")).value == "21"
        assert (await cell("_ * 2")).value == "42"
        assert (await cell("x = 5")).value is None
        assert (await cell("None")).value is None


async def test_variables_assigned_before_an_exception_stay() -> None:
    async with talk_to() as cell:
        failed = await cell("a = 1\nb = 2\n1 / 0\nc = 3")
        assert (failed.status, failed.exit_code) == ("error", 1)
        assert (await cell("a + b")).value == "3"
        assert (await cell("'c' in globals()")).value == "False"


async def test_a_traceback_shows_source_lines_of_this_and_earlier_cells() -> None:
    async with talk_to() as cell:
        await cell("def broken():\n    return {}['key']  # in an earlier cell")
        told = (await cell("broken()")).error or ""
        assert "return {}['key']  # in an earlier cell" in told
        assert 'File "<cell 1>", line 2' in told
        assert "KeyError: 'key'" in told
        assert "python_kernel" not in told


async def test_a_syntax_error_points_at_the_place() -> None:
    async with talk_to() as cell:
        failed = await cell("x = 1\ny = = 2")
        assert failed.status == "error"
        assert "y = = 2" in (failed.error or "")
        assert "SyntaxError" in (failed.error or "")
        assert (await cell("'x' in globals()")).value == "False"


async def test_functions_see_globals_of_later_cells() -> None:
    async with talk_to() as cell:
        await cell("def f():\n    return later")
        await cell("later = 'seen'")
        assert (await cell("f()")).value == "'seen'"


async def test_a_raising_repr_is_told_and_harms_nothing() -> None:
    async with talk_to() as cell:
        shown = await cell("class Bad:\n    def __repr__(self): raise ValueError('no')\nBad()")
        assert shown.status == "ok"
        assert "repr raised ValueError: no" in (shown.value or "")


async def test_a_huge_value_is_cut_head_and_tail() -> None:
    async with talk_to() as cell:
        value = (await cell("'a' * 5_000_000 + 'z'")).value or ""
        assert len(value) < 70_000
        assert value.startswith("'aaa")
        assert value.endswith("z'")


@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [
        ("import sys; sys.exit()", "ok", 0),
        ("import sys; sys.exit(3)", "error", 3),
        ("exit(4)", "error", 4),
        ("raise SystemExit('a reason')", "error", 1),
    ],
)
async def test_sys_exit_ends_the_cell_and_not_the_session(
    code: str, status: str, exit_code: int
) -> None:
    async with talk_to() as cell:
        await cell("x = 7")
        ended = await cell(code)
        assert (ended.status, ended.exit_code, ended.session_alive) == (status, exit_code, True)
        assert "the session goes on" in (ended.error or "")
        assert (await cell("x")).value == "7"


async def test_output_of_subprocesses_and_of_c_code_is_captured() -> None:
    async with talk_to() as cell:
        outcome = await cell(
            "import subprocess, os, ctypes\n"
            "print('python')\n"
            "subprocess.run(['echo', 'child'])\n"
            "os.write(2, b'raw\\n')\n"
            "libc = ctypes.CDLL(None); libc.puts(b'c code'); libc.fflush(None)"
        )
        assert outcome.stdout == b"python\nchild\nc code\n"
        assert outcome.stderr == b"raw\n"


async def test_a_replaced_or_closed_stdout_works_again_in_the_next_cell() -> None:
    async with talk_to() as cell:
        await cell("import io, sys; sys.stdout = io.StringIO(); print('away')")
        assert (await cell("print('back')")).stdout == b"back\n"
        await cell("sys.stdout.close()")
        assert (await cell("print('again')")).stdout == b"again\n"
        await cell("import os; os.close(1)")
        assert (await cell("print('still')")).stdout == b"still\n"


async def test_text_that_is_no_utf8_is_printed_rather_than_an_error() -> None:
    async with talk_to() as cell:
        outcome = await cell("print('\\udcff')\nimport os; os.write(1, b'\\xff\\xfe\\n')")
        assert outcome.status == "ok"
        assert outcome.stdout == b"\\udcff\n\xff\xfe\n"


async def test_input_finds_an_end_of_file() -> None:
    async with talk_to() as cell:
        assert "EOFError" in ((await cell("input()")).error or "")


async def test_one_input_is_the_text_context_and_several_are_a_dictionary(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("grüße")
    second.write_bytes(b"\xff bytes")
    async with talk_to(inputs={"a.txt": first}) as cell:
        assert (await cell("context")).value == "'grüße'"
    async with talk_to(inputs={"a.txt": first, "../odd name": second}) as cell:
        assert (await cell("sorted(context)")).value == "['../odd name', 'a.txt']"
        assert (await cell("context['../odd name']")).value == "'\ufffd bytes'"
        assert (await cell("dict(context)['a.txt']")).value == "'grüße'"
        assert (await cell("import json; json.dumps(context)")).status == "ok"
        assert (await cell("{**context} == context")).value == "True"
    async with talk_to() as cell:
        assert (await cell("context")).value == "''"


async def test_an_input_that_only_its_owner_may_read_is_seen_too(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.write_text("mine")
    private.chmod(0o600)
    async with talk_to(inputs={"private": private}) as cell:
        assert (await cell("context")).value == "'mine'"
        assert (await cell("open('/inputs/private', 'a')")).status == "error"
    assert private.read_text() == "mine"


async def test_a_context_costs_nothing_until_it_is_mentioned(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_text("0123456789" * 1_000_000)
    peak = "import resource; resource.getrusage(resource.RUSAGE_SELF).ru_maxrss"
    async with talk_to(inputs={"big": big}) as cell:
        before = int((await cell(peak)).value or 0)
        assert "10000000 bytes, not read yet" in ((await cell("SHOW_VARS()")).value or "")
        assert int((await cell(peak)).value or 0) - before < 5_000
        assert (await cell("len(context), context[-3:]")).value == "(10000000, '789')"


async def test_a_sub_call_is_answered_inside_the_cell() -> None:
    async with talk_to() as cell:
        outcome = await cell("llm_query('hello', model='small') + '!'")
        assert outcome.value == "'HELLO!'"
        ((call,),) = cell.batches
        assert (call.kind, call.prompt, call.model) == ("llm", "hello", "small")


async def test_a_batch_keeps_its_order_and_a_failed_slot_is_an_error_value() -> None:
    async with talk_to() as cell:
        cell.reply = lambda call: (
            SubCallResult(error="no peer")
            if call.prompt == "b"
            else SubCallResult(text=call.prompt)
        )
        outcome = await cell(
            "found = llm_query_batched(['a', 'b', 'c'])\n"
            "found[0], isinstance(found[1], LLMError), str(found[1]), found[2]"
        )
        assert outcome.value == "('a', True, 'no peer', 'c')"
        assert len(cell.batches) == 1


async def test_a_failed_single_sub_call_raises_a_typed_error() -> None:
    async with talk_to() as cell:
        cell.reply = lambda _: SubCallResult(error="no peer")
        told = (await cell("x = 1\nllm_query('a')")).error or ""
        assert told.endswith("LLMError: no peer")
        assert (
            await cell("try:\n    llm_query('a')\nexcept LLMError as e:\n    y = str(e)\ny")
        ).value


async def test_a_thousand_sub_calls_keep_their_order() -> None:
    async with talk_to() as cell:
        outcome = await cell(
            "found = llm_query_batched([f'p{i}' for i in range(1000)])\n"
            "found == [f'P{i}' for i in range(1000)]"
        )
        assert outcome.value == "True"


async def test_queries_from_threads_are_answered_at_the_same_time() -> None:
    async with talk_to() as cell:
        cell.reply_delay_s = 0.2
        outcome = await cell(
            "from concurrent.futures import ThreadPoolExecutor\n"
            "with ThreadPoolExecutor(8) as pool: found = list(pool.map(llm_query, 'abcdefgh'))\n"
            "''.join(found)"
        )
        assert outcome.value == "'ABCDEFGH'"
        assert outcome.duration_s < 0.8


async def test_a_prompt_that_no_frame_can_carry_is_an_error_of_that_call_only() -> None:
    async with talk_to() as cell:
        outcome = await cell(
            "found = llm_query_batched(['a', 'x' * 9_000_000])\nfound[0], type(found[1]).__name__"
        )
        assert outcome.value == "('A', 'LLMError')"


async def test_unfold_and_history_ask_the_host() -> None:
    async with talk_to() as cell:
        cell.reply = lambda call: SubCallResult(
            text=json.dumps(["t1", "t2"]) if call.kind == "history" else f"original {call.prompt}"
        )
        assert (await cell("unfold('h1')")).value == "'original h1'"
        assert (await cell("history[1], len(history)")).value == "('t2', 2)"
        assert [batch[0].kind for batch in cell.batches] == ["unfold", "history", "history"]


async def test_reserved_functions_come_back_after_each_cell() -> None:
    async with talk_to() as cell:
        await cell("llm_query = None\ndel FINAL\n__builtins__ = {}")
        assert (await cell("FINAL(llm_query('x'))")).answer == Answer("X", ready=True)
        assert (await cell("len('abc')")).value == "3"


@pytest.mark.parametrize(
    ("code", "content", "is_ready"),
    [
        ("pass", "", False),
        ("answer['content'] = 'draft'", "draft", False),
        ("answer['content'] = 'done'; answer['ready'] = True", "done", True),
        ("answer = {'content': 'new', 'ready': True}", "new", True),
        ("answer = 'bare'", "bare", False),
        ("FINAL('f')", "f", True),
        ("FINAL({'k': [1, 'ü']})", '{"k": [1, "ü"]}', True),
        ("v = 12\nFINAL_VAR('v')", "12", True),
        ("v = 12\nFINAL_VAR(v)", "12", True),
        ("answer['content'] = None", "", False),
        ("answer = {}", "", False),
    ],
)
async def test_the_answer_is_told_after_each_cell(code: str, content: str, is_ready: bool) -> None:
    async with talk_to() as cell:
        answer = (await cell(code)).answer
        assert answer is not None
        assert (answer.content, answer.ready) == (content, is_ready)


async def test_final_var_names_the_variables_that_there_are() -> None:
    async with talk_to() as cell:
        told = (await cell("known = 1\nFINAL_VAR('unknown')")).error or ""
        assert "no variable 'unknown'; there are: known" in told


async def test_the_digest_follows_the_variables_and_repeats_in_another_session() -> None:
    code = (
        "x = [1, {'a': {3, 'b'}}]\n"
        "s = {str(i) for i in range(50)}\n"
        "import random; r = random.random()"
    )
    digests = []
    for _ in range(2):
        async with talk_to(seed=7) as cell:
            outcome = await cell(code)
            order = (await cell("list(s)[:5]")).value
            digests.append((outcome.variables_digest, order))
            assert (await cell("x[0] = 2")).variables_digest != outcome.variables_digest
    assert digests[0] == digests[1]
    async with talk_to(seed=8) as cell:
        assert (await cell(code)).variables_digest != digests[0][0]


TELLS_TIME = """
import datetime, time
from datetime import date, datetime as moment
seen = [
    time.time(), time.time_ns(), time.ctime(), time.strftime("%F %T"), time.localtime()[:6],
    time.gmtime()[:6], moment.now().isoformat(), moment.now(datetime.timezone.utc).isoformat(),
    moment.today().isoformat(), date.today().isoformat(), datetime.datetime.utcnow().isoformat(),
]
"""


async def test_a_cell_that_runs_again_is_told_the_same_time() -> None:
    async with talk_to() as cell:
        first = await cell(TELLS_TIME)
    assert first.status == "ok", first.error
    assert len(first.clock) == 11
    assert list(first.clock) == sorted(first.clock)
    async with talk_to() as cell:
        later = await cell(TELLS_TIME)
        assert later.variables_digest != first.variables_digest
        again = await cell(TELLS_TIME, clock=first.clock)
        assert (again.clock, again.variables_digest) == (first.clock, first.variables_digest)
        assert (await cell("moment.now().year, time.gmtime(0).tm_year")).value != "(1970, 1970)"


async def test_behind_what_it_was_told_the_time_goes_on() -> None:
    async with talk_to() as cell:
        told = await cell(
            "import time\n[time.time() for _ in range(3)]", clock=(1_500_000, 2_000_000)
        )
        assert (told.value or "").startswith("[1.5, 2.0, 1")
        assert told.clock[:2] == (1_500_000, 2_000_000)
        many = await cell("x = [time.time() for _ in range(10_000)]\nx == sorted(x)")
        assert many.value == "True"
        assert len(many.clock) == CLOCK_READINGS_MAX
        assert (await cell("1 + 1")).clock == ()


async def test_moments_are_what_they_were() -> None:
    code = (
        "import copy, datetime, pickle\n"
        "now = datetime.datetime.now()\n"
        "class Own(datetime.datetime): pass\n"
        "pickle.loads(pickle.dumps(now)) == copy.deepcopy(now) == now,"
        "isinstance(now, datetime.date), type(now) is datetime.datetime, type(Own.now()) is Own"
    )
    async with talk_to() as cell:
        assert (await cell(code)).value == "(True, True, True, True)"


async def test_each_variable_has_a_digest_of_its_own() -> None:
    async with talk_to() as cell:
        first = (await cell("x, y = 1, 2")).variables
        second = (await cell("x = 3\nglobals()['no name'] = 1")).variables
        assert set(first) == set(second) == {"answer", "x", "y"}
        assert {name for name in first if first[name] != second[name]} == {"x"}
        many = (await cell("globals().update({f'v{n}': n for n in range(1000)})")).variables
        assert len(many) == VARIABLES_MAX


async def test_classes_pickle_and_processes_fork_as_in_a_script() -> None:
    async with talk_to() as cell:
        outcome = await cell(
            "import pickle\nclass A: pass\n"
            "def double(n): return 2 * n\n"
            "from multiprocessing import Pool\n"
            "with Pool(2) as pool: found = pool.map(double, [1, 2])\n"
            "type(pickle.loads(pickle.dumps(A()))).__name__, found"
        )
        assert outcome.value == "('A', [2, 4])"


async def test_a_fork_that_leaves_the_cell_is_no_second_kernel() -> None:
    async with talk_to() as cell:
        outcome = await cell("import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\n'once'")
        assert outcome.value == "'once'"
        assert (await cell("1 + 1")).value == "2"


async def test_memory_that_is_refused_leaves_the_session_alive() -> None:
    async with talk_to() as cell:
        await cell("x = 1")
        hungry = await cell("y = bytearray(3_000_000_000)")
        assert (hungry.status, hungry.session_alive) == ("memory", True)
        assert "MemoryError" in (hungry.error or "")
        assert (await cell("x")).value == "1"
