"""A home of three as its user sees it: the same history each time, and what differs shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kowalski.node.repl.scripted_sessions import ScriptedState
from simulations.conformance import (
    MORE_SCRIPTS,
    SCRIPTS,
    History,
    Onlooker,
    Script,
    broken_bounds,
    plain_python,
    simulated,
)

NOTHING, KILLED, CUT_OFF = SCRIPTS


@pytest.mark.parametrize("script", [*SCRIPTS, *MORE_SCRIPTS], ids=str)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_task_is_answered_once_whatever_befalls_its_nodes(script: Script, seed: int) -> None:
    history = simulated(script, seed)
    is_calm, is_led = script.what == "nothing", script.whom == "leader"
    terms = 1 if is_calm or not is_led else 2
    assert history.terms == list(range(1, terms + 1))
    assert history.visible["leaders"] == ["first leader", "second leader"][:terms]
    others = ["first worker" if is_led else "second worker"] * 2
    assert history.visible["workers"] == ["first worker", *others]
    assert history.cells == [(0, "done"), (1, "done"), (2, "done")]
    assert history.state == "answered"
    assert "second 499501" in history.answer
    assert history.retold == history.telling
    befell = [] if is_calm else [(f"first {script.whom}", word) for word in ("failed", "alive")]
    assert history.visible["verdicts"] == befell
    first = "first 499500\n" * (1 if is_led else 2)  # it is run again, to bring its variables back
    if terms == 1:
        assert history.printed == {0: first, 1: "second 499501\n", 2: "third 499501\n"}
    assert not broken_bounds(script, history)


def test_who_leads_is_told_by_rank_and_not_by_name() -> None:
    one = History(leaders=["b", "c", "b"], verdicts=[("b", "failed")])
    other = History(leaders=["c", "b", "c"], verdicts=[("c", "failed")])
    assert one.visible == other.visible
    assert one.visible != replace(other, verdicts=[("b", "failed")]).visible


def row(name: str, membership: str, *, routable: bool) -> dict[str, object]:
    return {"name": name, "membership": membership, "routable": routable}


def test_an_onlooker_times_what_is_noticed_from_when_it_befell() -> None:
    onlooker = Onlooker()
    assert not onlooker.heard({"kind": "coordinator", "name": "b", "term": 1})
    assert onlooker.heard({"kind": "cell", "cell": 0, "status": "done"})
    onlooker.looked([row("b", "alive", routable=True)], 1.0)
    onlooker.befell("b", 2.0)
    onlooker.looked([row("b", "suspect", routable=False)], 2.5)
    onlooker.looked([row("b", "failed", routable=False), row("c", "alive", routable=True)], 5.0)
    assert onlooker.has_given_up
    onlooker.looked([row("b", "alive", routable=True)], 9.0)
    assert onlooker.has_forgiven
    assert onlooker.history.verdicts == [("b", "failed"), ("b", "alive")]
    assert onlooker.history.unroutable_after_s == 0.5
    assert onlooker.history.failed_after_s == 3.0


def cell(number: int, name: str) -> dict[str, object]:
    return {"kind": "cell", "cell": number, "status": "done", "name": name}


def test_what_is_told_otherwise_once_all_is_over_is_not_alike() -> None:
    onlooker, ended = Onlooker(), {"state": "answered", "answer": "42"}
    told = [{"kind": "submitted", "task": "t"}, cell(0, "b"), cell(1, "c")]
    for event in told:
        onlooker.heard(event)
    onlooker.ended(ended)
    assert onlooker.task == "t"
    for again, reply, is_alike in (
        (told, ended, True),
        ([*told, cell(1, "b")], ended, False),
        ([told[0], cell(0, "b"), cell(1, "b")], ended, False),
        (told, {**ended, "answer": "43"}, False),
    ):
        onlooker.retold(again, reply)
        assert onlooker.history.visible["is told alike again"] is is_alike
    assert onlooker.history.cells == [(0, "done"), (1, "done")]


def test_what_cells_print_is_joined_by_cell_and_compared_where_one_leads_throughout() -> None:
    onlooker = Onlooker()
    onlooker.heard({"kind": "coordinator", "name": "a", "term": 1})
    for text in ("one ", "two"):
        onlooker.heard({"kind": "output", "cell": 1, "text": text})
    assert onlooker.history.visible["printed"] == {1: "one two"}
    onlooker.heard({"kind": "coordinator", "name": "c", "term": 2})
    assert "printed" not in onlooker.history.visible


@pytest.mark.parametrize(
    ("unroutable_s", "failed_s", "broken"),
    [(0.5, 3.0, 0), (5.0, 3.0, 1), (0.5, 0.5, 1), (0.5, 9.0, 1), (None, None, 2)],
)
def test_what_is_noticed_too_early_or_too_late_breaks_the_bounds(
    unroutable_s: float | None, failed_s: float | None, broken: int
) -> None:
    history = History(unroutable_after_s=unroutable_s, failed_after_s=failed_s)
    assert len(broken_bounds(CUT_OFF, history)) == broken
    assert len(broken_bounds(KILLED, replace(history, unroutable_after_s=0.1))) <= broken
    assert broken_bounds(NOTHING, History(verdicts=[("b", "failed")]))


def test_cells_are_really_run_after_those_before_them_and_sleep_costs_nothing() -> None:
    state = ScriptedState("python", {}, 0, ("import time\nx = 1\nprint('not shown')",))
    cell = plain_python("time.sleep(2)\nprint(x + 1)", state)
    assert cell.outcome.stdout == b"2\n"
    assert cell.duration_s == 2.0
