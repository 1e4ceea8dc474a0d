"""Which blocks become cells, and what a model is told of cells that came back otherwise."""

from __future__ import annotations

from kowalski.protocol.limits import CODE_BYTES_MAX
from kowalski.protocol.messages.journal import CellDiverged, CellFinished, Opened
from kowalski.rlm import cells, session
from kowalski.rlm.parsing import parse
from kowalski.rlm.session import AskModel, RunCell
from tests.kowalski.rlm.session_world import LIMITS, PEER, World, echo, finished, replied, spec


def block(code: str, language: str = "python") -> str:
    return f"```{language}\n{code}\n```\n"


def test_every_block_is_a_cell_or_has_a_reason_why_not() -> None:
    text = block("a") + block("x" * (CODE_BYTES_MAX + 1)) + block("b") + block("c") + "```python\nd"
    fresh = session.new_session(spec("?"), limits=LIMITS)
    planned, refused = cells.planned(fresh, parse(text).blocks, 2, runs_unclosed=False)
    assert [(cell.number, cell.code, cell.block) for cell in planned] == [
        (0, "a\n", 0),
        (1, "b\n", 2),
    ]
    assert [ordinal for ordinal, _ in refused] == [1, 3, 4]
    reasons = [reason for _, reason in refused]
    assert reasons[0].endswith("bytes of code")
    assert reasons[1] == "no more than 2 blocks are run"
    assert reasons[2].startswith("its fence was never closed")


def test_an_output_that_holds_code_is_shown_and_not_run() -> None:
    def run(cell: RunCell) -> CellFinished:
        return finished(cell.cell, block("from an output")) if cell.cell == 0 else echo(cell)

    world = World((block("x"), block("ready 1")), run=run)
    world.go(spec("?", "rlm", inputs=["a"]))
    assert [cell.code for cell in world.cells] == ["x\n", "ready 1\n"]


def test_variables_that_came_back_otherwise_are_told_to_the_model_once() -> None:
    fresh = session.new_session(spec("?", "rlm", inputs=["a"]), limits=LIMITS)
    state, _ = session.step(fresh, Opened(mode="rlm", model="m"))
    state, _ = session.step(state, replied(0, block("x")))
    diverged = CellDiverged(cell=0, language="python", peer=PEER, names=("now", "pid"))
    state, effects = session.step(state, diverged)
    assert effects == ()
    state, effects = session.step(state, finished(0, "out"))
    ask = effects[-1]
    assert isinstance(ask, AskModel)
    told = ask.messages[-1].content
    assert "Cell 0 left other values behind than before (now, pid)" in told
    assert told.index("now, pid") < told.index("out")
    state, _ = session.step(state, replied(1, block("y")))
    state, effects = session.step(state, finished(1, "out"))
    ask = effects[-1]
    assert isinstance(ask, AskModel)
    assert "other values" not in ask.messages[-1].content
