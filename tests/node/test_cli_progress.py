"""The retelling of a task under way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.cli_progress import OUTPUT_LINES_MAX, Progress, shown

Event = dict[str, object]


def lines(progress: Progress, *events: Event) -> list[str | None]:
    return [progress.line(event) for event in events]


def test_every_kind_of_event_has_its_line() -> None:
    progress = Progress(60.0, clock=lambda: 0.0)
    told = lines(
        progress,
        {"kind": "submitted", "task": "T1"},
        {"kind": "coordinator", "peer": "P" * 20, "name": "desk", "term": 7},
        {"kind": "turn", "n": 2},
        {"kind": "cell", "cell": "c1", "language": "bash", "name": "box", "status": "started",
         "why": "it is idle"},
        {"kind": "output", "stream": "stdout", "text": "one\ntwo\n"},
        {"kind": "cell", "cell": "c1", "language": "bash", "name": "lap", "status": "moved",
         "why": "box is gone"},
        {"kind": "cell", "cell": "c1", "language": "bash", "name": "lap", "status": "done",
         "duration_s": 0.5},
        {"kind": "call", "model": "m", "name": "box"},
        {"kind": "fold", "source_tokens": 9, "tokens": 3},
        {"kind": "note", "text": "no model"},
    )  # fmt: skip
    assert told == [
        "task T1",
        "led by desk, term 7",
        "turn 2",
        "cell c1 bash on box: it is idle",
        "  | one\n  | two",
        "cell c1 bash on lap, moved there: box is gone",
        "cell c1 bash on lap: done after 500 ms",
        "model m on box",
        "folded: source_tokens 9, tokens 3",
        "no model",
    ]
    assert progress.task == "T1"
    assert progress.headline() == ("0 s, turn 2, 1 cell (0 running), 1 call, 3 peers, 60.0 s left")


def test_tokens_are_counted_and_not_told() -> None:
    progress = Progress(60.0, clock=lambda: 0.0)
    assert lines(progress, {"kind": "delta", "text": "x" * 400}) == [None]
    assert "~100 tokens" in progress.headline()


def test_the_budget_runs_down_and_not_below_nothing() -> None:
    now = 0.0
    progress = Progress(60.0, clock=lambda: now)
    now = 50.0
    assert "10.0 s left" in progress.headline()
    now = 500.0
    assert "0 ms left" in progress.headline()


def test_a_flood_of_output_is_cut_once() -> None:
    progress = Progress(60.0)
    (told, more) = lines(
        progress,
        {"kind": "output", "text": "x\n" * 1000},
        {"kind": "output", "text": "x\n" * 1000},
    )
    assert told is not None
    assert len(told.splitlines()) == OUTPUT_LINES_MAX + 1
    assert told.endswith("...")
    assert more is None


def test_an_event_of_a_later_version_is_passed_over() -> None:
    assert lines(Progress(60.0), {"kind": "dance"}, {}) == [None, None]


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
KINDS = ("submitted", "coordinator", "turn", "cell", "output", "delta", "call", "fold", "x")
KEYS = ("task", "n", "name", "peer", "cell", "status", "text", "why", "duration_s")


@given(
    st.sampled_from(KINDS),
    st.dictionaries(
        st.sampled_from(KEYS),
        scalars | st.lists(scalars) | st.dictionaries(st.text(), scalars),
    ),
)
def test_no_event_however_odd_breaks_the_retelling(kind: str, event: Event) -> None:
    progress = Progress(60.0)
    progress.line({"kind": kind, **event})
    assert progress.headline()


def test_without_a_terminal_lines_carry_the_time() -> None:
    said: list[str] = []
    with shown(Progress(60.0, clock=lambda: 0.0), said.append) as on_event:
        on_event({"kind": "turn", "n": 1})
        on_event({"kind": "delta", "text": "x"})
    assert said == ["[   0.0 s] turn 1"]
