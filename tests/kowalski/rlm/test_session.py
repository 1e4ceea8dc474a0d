from __future__ import annotations

from kowalski.protocol.messages.journal import (
    BudgetSpent,
    CancelHeard,
    CellFailed,
    CellFinished,
    ModelFailed,
    Opened,
)
from kowalski.rlm import session
from kowalski.rlm.session import AskModel, Finish, RunCell
from tests.kowalski.rlm.session_world import (
    LIMITS,
    World,
    echo,
    finished,
    replied,
    spec,
)

NO_MODEL = ModelFailed(call=0, code="backend", detail="every peer is busy")


def block(code: str, language: str = "python") -> str:
    return f"```{language}\n{code}\n```\n"


THREE = f"First:\n\n{block('a')}\nthen\n\n{block('b', 'js')}\nand\n\n{block('c')}\nEnd."


def unsupported(cell: RunCell) -> CellFailed:
    return CellFailed(cell=cell.cell, code="unsupported", detail=f"no peer runs {cell.language}")


def opened(prompt: str, mode: str, *, turns: int = 5, model: str | None = "m") -> session.Session:
    task = spec(prompt, turns=turns)
    fresh = session.new_session(task, limits=LIMITS)
    opening = Opened.model_validate({"mode": mode, "model": model})
    return session.step(fresh, opening)[0]


# --- direct --------------------------------------------------------------------------------------


def test_a_direct_answer_is_the_reply() -> None:
    world = World(("42\n",))
    assert world.go(spec("6 * 7?")) == Finish("answered", "42", "")
    assert [message.content for message in world.asked[0].messages] == ["6 * 7?"]
    assert world.asked[0].model == "m"


def test_inputs_follow_a_direct_question() -> None:
    world = World(("fine",))
    texts = (session.InputText("a.txt", "some text", is_whole=True),)
    world.go(spec("what is this?", inputs=["a.txt"]), inputs=texts)
    (message,) = world.asked[0].messages
    assert message.content == "what is this?\n\n--- a.txt ---\nsome text"


def test_code_in_a_direct_question_or_reply_is_not_run() -> None:
    world = World((block("x"),))
    assert world.go(spec(block("y"), "direct")).answer == block("x").strip()
    assert world.cells == []


def test_thoughts_are_no_part_of_an_answer() -> None:
    assert World(("<think>is it 41?</think>\n42",)).go(spec("?")).answer == "42"


def test_a_model_that_says_nothing_is_a_failure() -> None:
    assert World((" \n",)).go(spec("?")) == Finish("failed", "", "empty_reply: m said nothing")


def test_a_question_nobody_answers_is_a_failure_with_its_code() -> None:
    assert World((NO_MODEL,)).go(spec("?")) == Finish("failed", "", "backend: every peer is busy")


# --- blocks --------------------------------------------------------------------------------------


def test_outputs_stand_after_their_blocks() -> None:
    finish = World().go(spec(THREE), models=())
    assert finish.outcome == "answered"
    assert finish.answer == (
        f"First:\n\n{block('a')}```output\nran a after ()\n```\n\nthen\n\n"
        f"{block('b', 'js')}```output\nran b after ()\n```\n\nand\n\n"
        f"{block('c')}```output\nran c after (0,)\n```\n\nEnd.\n\n"
        "(No model refined this: no model was usable anywhere in the mesh.)\n"
    )
    assert finish.detail == "unrefined: no model was usable anywhere in the mesh"


def test_languages_run_side_by_side_and_each_in_order() -> None:
    fresh = session.new_session(spec(THREE), limits=LIMITS)
    state, effects = session.step(fresh, Opened(mode="blocks"))
    assert effects == (RunCell(0, "python", "a\n", ()), RunCell(1, "js", "b\n", ()))
    state, effects = session.step(state, finished(0, "A"))
    assert effects == (RunCell(2, "python", "c\n", (0,)),)
    assert session.outstanding(state) == (RunCell(1, "js", "b\n", ()), *effects)


def test_outputs_are_in_the_order_of_the_prompt_whoever_ends_first() -> None:
    answers = {
        World().go(spec(THREE), models=(), take=take).answer
        for take in (lambda _waiting: 0, lambda waiting: waiting - 1)
    }
    assert len(answers) == 1


def test_a_block_that_fails_shows_its_error_and_the_rest_goes_on() -> None:
    def run(cell: RunCell) -> CellFinished:
        if cell.cell:
            return echo(cell)
        return finished(0, "Traceback: boom", status="error")

    answer = World(run=run).go(spec(THREE), models=()).answer
    assert "```output\nTraceback: boom\n[ended with an error]\n```" in answer
    assert "ran c after (0,)" in answer


def test_a_cell_that_took_its_session_along_is_not_run_again() -> None:
    def run(cell: RunCell) -> CellFinished:
        if cell.cell:
            return echo(cell)
        return finished(0, "", status="died", is_session_alive=False)

    answer = World(run=run).go(spec(THREE), models=()).answer
    assert "[its process died; the session began anew" in answer
    assert "ran c after ()" in answer


def test_a_language_nobody_speaks_is_marked_in_its_place() -> None:
    def run(cell: RunCell) -> CellFinished | CellFailed:
        return unsupported(cell) if cell.language == "js" else echo(cell)

    finish = World(run=run).go(spec(THREE), models=(), languages=["python"])
    assert finish.outcome == "answered"
    assert f"{block('b', 'js')}```output\n[not run: no peer runs js]\n```" in finish.answer


def test_when_no_block_runs_the_failure_names_the_languages() -> None:
    finish = World(run=unsupported).go(spec(THREE), models=())
    assert finish.outcome == "failed"
    assert finish.detail.startswith("no_language: no block could be run (js, python)")
    assert "[not run: no peer runs js]" in finish.answer


def test_when_nobody_can_be_reached_the_failure_says_so() -> None:
    def run(cell: RunCell) -> CellFailed:
        return CellFailed(cell=cell.cell, code="unreachable", detail="all gone")

    assert World(run=run).go(spec(THREE), models=()).detail.startswith("unreachable: ")


def test_a_model_refines_what_the_blocks_printed() -> None:
    world = World(("The answer is A.",))
    assert world.go(spec(THREE, "blocks")) == Finish("answered", "The answer is A.", "")
    (question,) = (message.content for message in world.asked[0].messages)
    assert "ran c after (0,)" in question


def test_while_refining_only_blocks_of_the_newest_reply_run() -> None:
    world = World((f"more:\n{block('d')}", f"and\n{block('e', 'js')}", "Done."))
    assert world.go(spec(THREE, "blocks")).answer == "Done."
    assert [cell.code for cell in world.cells] == ["a\n", "b\n", "c\n", "d\n", "e\n"]
    assert [cell.after for cell in world.cells] == [(), (), (0,), (0, 2), (1,)]
    assert "Output of block 1 (js):\nran e after (1,)" in world.asked[-1].messages[-1].content


def test_out_of_turns_the_newest_draft_is_the_answer_and_says_so() -> None:
    world = World((f"draft\n\n{block('d')}",))
    finish = world.go(spec(THREE, "blocks", turns=2))
    assert len(world.asked) == 2
    assert finish.detail == "unfinished: no final answer in 2 turns"
    assert finish.answer == f"draft\n\n{block('d')}```output\nran d after (0, 2, 3)\n```\n"


def test_if_no_model_answers_the_outputs_stand_unrefined() -> None:
    finish = World((NO_MODEL,)).go(spec(THREE, "blocks"))
    assert finish.outcome == "answered"
    assert "ran c after (0,)" in finish.answer
    assert finish.answer.endswith("(No model refined this: backend: every peer is busy.)\n")


def test_a_block_that_its_author_never_closed_runs() -> None:
    finish = World().go(spec("```python\nx"), models=())
    assert "ran x after ()" in finish.answer


def test_more_blocks_than_the_limit_are_marked() -> None:
    limits = session.SessionLimits(blocks_max=2)
    finish = World().go(spec(THREE), models=(), limits=limits)
    assert "[not run: no more than 2 blocks are run]" in finish.answer


def test_a_spent_budget_while_blocks_run_is_a_failure_that_keeps_their_outputs() -> None:
    state = opened(THREE, "blocks", model=None)
    state, _ = session.step(state, finished(0, "A"))
    _, effects = session.step(state, BudgetSpent(limit="timeout", detail="60 s are over"))
    (finish,) = effects
    assert isinstance(finish, Finish)
    assert (finish.outcome, finish.detail) == ("failed", "timeout: 60 s are over")
    assert "```output\nA\n```" in finish.answer


def test_a_cancelled_task_keeps_the_outputs_so_far() -> None:
    state = opened(THREE, "blocks", model=None)
    state, _ = session.step(state, finished(1, "B"))
    _, (finish,) = session.step(state, CancelHeard(reason="enough"))
    assert isinstance(finish, Finish)
    assert (finish.outcome, finish.detail) == ("cancelled", "cancelled: enough")
    assert "```output\nB\n```" in finish.answer


def test_an_answer_that_the_prompts_own_blocks_set_ends_nothing() -> None:
    finish = World(("Done.",)).go(spec(block("ready 42") + "\n" + block("c"), "blocks"))
    assert finish.answer == "Done."


def test_an_answer_set_while_refining_is_the_answer() -> None:
    finish = World((block("ready 42"),)).go(spec(THREE, "blocks"))
    assert finish == Finish("answered", "42", "")


def test_a_cell_that_ends_twice_counts_as_it_ended_first() -> None:
    state = opened(THREE, "blocks")
    state, _ = session.step(state, finished(0, "A"))
    assert session.step(state, finished(0, "B")) == (state, ())


# --- any mode ------------------------------------------------------------------------------------


def test_an_event_that_answers_nothing_changes_nothing() -> None:
    state = opened("?", "direct")
    for event in (replied(1, "late"), finished(0), Opened(mode="rlm", model="m")):
        assert session.step(state, event) == (state, ())


def test_after_the_end_nothing_more_is_done() -> None:
    state = opened("?", "direct")
    state, effects = session.step(state, replied(0, "42"))
    assert effects == (Finish("answered", "42", ""),)
    assert session.step(state, replied(0, "43")) == (state, ())
    assert session.step(state, CancelHeard(reason="late")) == (state, ())
    assert session.outstanding(state) == effects


def test_before_the_beginning_nothing_is_done() -> None:
    fresh = session.new_session(spec("?"), limits=LIMITS)
    assert session.outstanding(fresh) == ()
    assert session.step(fresh, replied(0, "x")) == (fresh, ())


def test_an_effect_is_asked_for_once() -> None:
    state = opened(THREE, "blocks")
    for event in (finished(0), finished(1), finished(2)):
        state, effects = session.step(state, event)
    (ask,) = effects
    assert isinstance(ask, AskModel)
    assert session.outstanding(state) == (ask,)
