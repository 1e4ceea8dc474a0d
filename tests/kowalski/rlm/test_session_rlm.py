"""Mode `rlm` of the session machine."""

from __future__ import annotations

import pytest

from kowalski.protocol.limits import CODE_BYTES_MAX
from kowalski.protocol.messages.journal import (
    BudgetSpent,
    CancelHeard,
    CellFailed,
    CellFinished,
    ModelFailed,
    Opened,
)
from kowalski.rlm import session
from kowalski.rlm.session import Finish, RunCell
from tests.kowalski.rlm.session_world import LIMITS, World, echo, finished, replied, spec

READY = "```python\nready 42\n```"


def block(code: str, language: str = "python") -> str:
    return f"```{language}\n{code}\n```\n"


def solve(*replies: str | ModelFailed, turns: int = 5) -> tuple[Finish, World]:
    world = World(replies)
    return world.go(spec("How many?", "rlm", turns=turns, inputs=["data.txt"])), world


def opened(*, turns: int = 5) -> session.Session:
    task = spec("How many?", "rlm", turns=turns, inputs=["data.txt"])
    fresh = session.new_session(task, limits=LIMITS)
    return session.step(fresh, Opened(mode="rlm", model="m"))[0]


def test_the_answer_is_the_variable_once_it_is_ready() -> None:
    finish, world = solve(READY)
    assert finish == Finish("answered", "42", "")
    assert len(world.asked) == 1


def test_the_model_is_told_the_rules_the_question_and_the_shape_of_the_data() -> None:
    _, world = solve(READY)
    system, user = world.asked[0].messages
    assert (system.role, user.role) == ("system", "user")
    assert "context" in system.content
    assert "How many?" in user.content
    assert "`context` is a str, 10000000 bytes, from data.txt." in user.content


def test_outputs_are_shown_and_the_window_is_appended_to() -> None:
    _, world = solve(f"I look.\n{block('x')}", READY)
    first, second = (asked.messages for asked in world.asked)
    assert second[: len(first)] == first
    assistant, outputs = second[len(first) :]
    assert (assistant.role, assistant.content) == ("assistant", f"I look.\n{block('x')}")
    assert outputs.role == "user"
    assert outputs.content.startswith("Output of block 1 (python):\nran x after ()\n\nTurn 2 of 5.")


def test_only_the_newest_reply_is_run_and_each_block_once() -> None:
    replies = [f"turn {turn}\n{block(f'count {turn}')}" for turn in range(24)]
    finish, world = solve(*replies, READY, turns=30)
    assert finish.answer == "42"
    assert [cell.code for cell in world.cells] == [
        *(f"count {turn}\n" for turn in range(24)),
        "ready 42\n",
    ]
    assert [cell.cell for cell in world.cells] == list(range(25))


def test_blocks_of_the_prompt_and_of_outputs_are_not_run() -> None:
    def run(cell: RunCell) -> CellFinished:
        return finished(cell.cell, block("from output")) if cell.cell == 0 else echo(cell)

    world = World((block("x"), READY), run=run)
    world.go(spec(f"look: {block('from prompt')}", "rlm"))
    assert [cell.code for cell in world.cells] == ["x\n", "ready 42\n"]


def test_blocks_of_one_reply_run_one_after_the_other() -> None:
    state, effects = session.step(opened(), replied(0, block("a") + block("b", "js") + block("c")))
    assert [effect for effect in effects if isinstance(effect, RunCell)] == [
        RunCell(0, "python", "a\n", ())
    ]
    state, effects = session.step(state, finished(0))
    assert effects == (RunCell(1, "js", "b\n", ()),)
    state, effects = session.step(state, finished(1))
    assert effects == (RunCell(2, "python", "c\n", (0,)),)


def test_what_stands_beside_a_block_is_no_answer() -> None:
    invented = f"{block('x')}\n```output\n7\n```\nThe final answer is 7."
    finish, world = solve(invented, READY)
    assert finish == Finish("answered", "42", "")
    assert "ran x after ()" in world.asked[1].messages[-1].content


def test_after_a_ready_answer_no_further_block_runs() -> None:
    _, world = solve(READY + "\n" + block("more"))
    assert [cell.code for cell in world.cells] == ["ready 42\n"]


def test_an_answer_that_is_ready_but_empty_is_not_ready() -> None:
    finish, world = solve(block("ready"), READY)
    assert finish.answer == "42"
    assert len(world.asked) == 2


def test_a_block_that_fails_is_shown_and_the_next_one_runs() -> None:
    def run(cell: RunCell) -> CellFinished:
        if cell.cell == 0:
            return finished(0, "NameError", status="error")
        return echo(cell)

    world = World((block("a") + block("b"), READY), run=run)
    world.go(spec("?", "rlm"))
    shown = world.asked[1].messages[-1].content
    assert "Output of block 1 (python):\nNameError\n[ended with an error]" in shown
    assert "Output of block 2 (python):\nran b after (0,)" in shown


def test_out_of_turns_an_answer_that_was_set_is_taken() -> None:
    finish, world = solve(block("answer 7"), turns=3)
    assert finish == Finish(
        "answered", "7", "unready: the session never marked it as ready in 3 turns"
    )
    assert [asked.purpose for asked in world.asked] == ["turn"] * 3


def test_out_of_turns_without_an_answer_one_more_call_extracts_it() -> None:
    finish, world = solve(block("x"), block("y"), "It is 7.", turns=2)
    assert finish == Finish(
        "answered", "It is 7.", "extracted: the session set no answer in 2 turns"
    )
    assert [asked.purpose for asked in world.asked] == ["turn", "turn", "extract"]
    last = world.asked[-1].messages[-1]
    assert last.role == "user"
    assert "ran y after (0,)" in last.content
    assert "no turns left" in last.content


def test_code_in_an_extracted_answer_is_not_run() -> None:
    finish, world = solve(block("x"), turns=1)
    assert finish.answer == block("x").strip()
    assert len(world.cells) == 1


def test_a_model_that_extracts_nothing_fails() -> None:
    assert solve(block("x"), "", turns=1)[0] == Finish(
        "failed", "", "no_answer: none after 1 turns"
    )


@pytest.mark.parametrize(
    ("reply", "hint"),
    [
        ("", "the reply was empty."),
        (" \r\n\t", "the reply was empty."),
        ("<think>\n```python\nx\n```\n</think>", "the reply was empty."),
        ("<think>on and on", "the reply was empty."),
        ("It is 7.", "the reply has no code block."),
        ("`print(1)` and\n\n    indented", "the reply has no code block."),
        ('FINAL("7")', "the reply has no code block."),
        ("```python\nprint(1)", "of block 1, its fence was never closed"),
        ("```\nprint(1)\n```", "the block does not say its language."),
        ("```cobol\nDISPLAY\n```", "`cobol` is no language that can be run."),
        ("x" * 300_000, "the reply has no code block."),
        (f"```python\n{'x' * (CODE_BYTES_MAX + 1)}\n```", "bytes of code"),
    ],
)
def test_a_reply_without_code_gets_one_clear_hint(reply: str, hint: str) -> None:
    finish, world = solve(reply, READY)
    assert finish == Finish("answered", "42", "")
    told = world.asked[1].messages[-1].content
    assert told.startswith(f"Nothing was run: {hint}") or hint in told.partition("\n")[0]
    assert "Turn 2 of 5" in told
    assert [cell.code for cell in world.cells] == ["ready 42\n"]


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("```python\r\na\r\nb\r\n```\r\n", "a\nb\n"),
        ("~~~py\na\n~~~", "a\n"),
        ('```python\ns = "```"\n```', 's = "```"\n'),
        ("<think>```python\ndraft\n```</think>\n```repl\nreal\n```", "real\n"),
    ],
)
def test_odd_replies_that_hold_code_are_run(reply: str, code: str) -> None:
    _, world = solve(reply, READY)
    assert world.cells[0].code == code


def test_a_block_cut_short_is_not_run_but_those_before_it_are() -> None:
    _, world = solve(block("a") + "```python\nb = ", READY)
    assert [cell.code for cell in world.cells] == ["a\n", "ready 42\n"]
    shown = world.asked[1].messages[-1].content
    assert "Output of block 2:\n[not run: its fence was never closed" in shown


def test_a_model_that_twice_writes_no_code_has_said_its_answer() -> None:
    finish, world = solve("It is 7.", "It is 7, I said.", turns=30)
    assert finish == Finish(
        "answered",
        "It is 7, I said.",
        "extracted: the model twice wrote no code; this is what it said",
    )
    assert len(world.asked) == 2


def test_a_model_that_twice_writes_no_code_after_setting_the_answer_means_that_one() -> None:
    finish, _ = solve(block("answer 7"), "Done.", "Done, as said.")
    assert finish == Finish("answered", "7", "unready: the session never marked it as ready")


def test_replies_without_code_count_only_in_a_row() -> None:
    finish, _ = solve("Hm.", block("x"), "Hm.", READY)
    assert finish == Finish("answered", "42", "")


def test_a_model_that_never_says_anything_ends_with_its_turns() -> None:
    finish, world = solve("", turns=4)
    assert finish.outcome == "failed"
    assert len(world.asked) == 5


def test_more_blocks_than_a_reply_may_have_are_not_run() -> None:
    limits = session.SessionLimits(reply_cells_max=2)
    world = World((block("a") * 5, READY))
    world.go(spec("?", "rlm"), limits=limits)
    assert [cell.code for cell in world.cells] == ["a\n", "a\n", "ready 42\n"]
    assert "no more than 2 blocks are run" in world.asked[1].messages[-1].content


def test_a_language_nobody_speaks_is_told_to_the_model() -> None:
    def run(cell: RunCell) -> CellFinished | CellFailed:
        if cell.language == "java":
            return CellFailed(cell=cell.cell, code="unsupported", detail="no peer runs java")
        return echo(cell)

    world = World((block("x", "java"), READY), run=run)
    assert world.go(spec("?", "rlm")).answer == "42"
    assert "[not run: no peer runs java]" in world.asked[1].messages[-1].content


@pytest.mark.parametrize(
    ("language", "code"), [("python", "unsupported"), ("python", "unreachable"), ("js", "busy")]
)
def test_a_cell_nobody_can_run_fails_the_task_and_keeps_the_partial_answer(
    language: str, code: str
) -> None:
    def run(cell: RunCell) -> CellFinished | CellFailed:
        if cell.cell:
            return CellFailed(cell=cell.cell, code=code, detail="all gone")
        return echo(cell)

    world = World((block("answer 7"), block("x", language)), run=run)
    assert world.go(spec("?", "rlm")) == Finish("failed", "7", f"{code}: all gone")


def test_a_question_nobody_answers_fails_the_task_and_keeps_the_partial_answer() -> None:
    gone = ModelFailed(call=0, code="unreachable", detail="all gone")
    assert solve(block("answer 7"), gone)[0] == Finish("failed", "7", "unreachable: all gone")


def test_a_session_that_was_lost_is_told_to_the_model_and_begins_anew() -> None:
    def run(cell: RunCell) -> CellFinished:
        if cell.cell == 1:
            return finished(1, "", status="memory", is_session_alive=False)
        return echo(cell)

    world = World((block("a"), block("b"), block("c"), READY), run=run)
    world.go(spec("?", "rlm"))
    assert [cell.after for cell in world.cells] == [(), (0,), (0,), (0, 2)]
    shown = world.asked[2].messages[-1].content
    assert "[stopped: out of memory; the session began anew" in shown


def test_a_cancelled_task_keeps_the_partial_answer() -> None:
    state = opened()
    state, _ = session.step(state, replied(0, block("answer 7") + block("x")))
    state, _ = session.step(state, finished(0, answer="7"))
    _, effects = session.step(state, CancelHeard(reason="enough"))
    assert effects == (Finish("cancelled", "7", "cancelled: enough"),)


def test_a_spent_budget_gives_the_partial_answer_if_there_is_one() -> None:
    state = opened()
    spent = BudgetSpent(limit="timeout", detail="60 s are over")
    assert session.step(state, spent)[1] == (Finish("failed", "", "timeout: 60 s are over"),)
    state, _ = session.step(state, replied(0, block("answer 7") + block("x")))
    state, _ = session.step(state, finished(0, answer="7"))
    _, effects = session.step(state, spent)
    assert effects == (Finish("answered", "7", "unready: timeout: 60 s are over"),)


def test_what_was_spent_is_counted_as_the_journal_has_it() -> None:
    state = opened()
    state, _ = session.step(state, replied(0, block("x")))
    assert (state.spent.calls, state.spent.prompt_tokens) == (1, 10)


def test_notes_tell_what_a_turn_brought() -> None:
    _, world = solve(block("x") + block("y"), "Hm.", READY)
    assert world.notes == [
        "turn 1 of 5: 2 cells",
        "turn 2 of 5: nothing to run",
        "turn 3 of 5: 1 cell",
    ]


def test_a_long_session_builds_each_message_once() -> None:
    _, world = solve(block("x"), turns=200)
    built = {id(message) for asked in world.asked for message in asked.messages}
    assert len(world.asked) == 201
    assert len(built) == 2 + 2 * 200
