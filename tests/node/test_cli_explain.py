"""explain and submit --dry-run, against a node that says what it is told to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from kowalski.node import cli_explain
from kowalski.node.cli import cli
from kowalski.protocol.errors import RequestRefusedError
from tests.node.scripted_node import Script, ScriptedNode, scripted_node

APPOINTED = {
    "age_s": 12.5,
    "term": 2,
    "chosen": "B",
    "name": "box",
    "why": "its coordinator has left",
    "candidates": [
        {"peer": "B", "name": "box", "weight": 1.0, "score": 4.5, "share": 0.75},
        {
            "peer": "C",
            "name": "cat",
            "weight": 0.5,
            "score": 1.1,
            "share": 0.25,
            "is_standby": True,
        },
        {"peer": "D", "name": "dog", "weight": 0.5, "score": 0.5, "is_excluded": True},
    ],
}
CHOSEN = {
    "wanted": "run python",
    "by_name": "box",
    "name": "desk",
    "chosen": "E",
    "age_s": 3.0,
    "kind": "code",
    "way": "offers",
    "why": "score 0.972; offers to be done in 1 s",
    "expected_s": 1.25,
    "candidates": [
        {
            "peer": "E",
            "name": "desk",
            "score": 0.972,
            "running": 1,
            "slots": 4,
            "ours": 2,
            "rtt_s": 0.0075,
            "speed": 1.0,
            "slowness": 1.5,
            "offer": {"wait_s": 0.25, "service_s": 1.0, "expected_s": 1.25, "cached_tokens": 9},
        },
        {"peer": "F", "name": "fox", "score": 0.5, "refused": "busy: full", "is_ready": False},
        {"peer": "G", "name": "gnu", "why": "no python"},
        {"peer": "H", "name": "hen", "why": "no python"},
    ],
}
EXPLAINED: dict[str, object] = {
    "task": "T1",
    "state": "answered",
    "submitter_name": "lap",
    "appointments": [APPOINTED],
    "decisions": [CHOSEN, {"wanted": "fold a text", "way": "nobody", "why": "?", "age_s": 1.0}],
    "ran": [{"what": "cell 0 (python)", "name": "desk", "why": "near"}],
    "unknown": [{"peer": "D", "name": "dog", "why": "cannot be reached"}],
}
WOULD: dict[str, object] = {
    "task": "T1",
    "is_named": False,
    "mode": "blocks",
    "model": "m",
    "why": "asked for",
    "obstacle": None,
    "exit_code": 0,
    "appointments": [APPOINTED],
    "decisions": [CHOSEN],
    "unknown": [],
}


def invoke(
    tmp_path: Path, scripts: dict[str, Script], *args: str
) -> tuple[Result, list[tuple[str, dict[str, Any]]]]:
    node: ScriptedNode
    with scripted_node(tmp_path, scripts) as node:
        ended = CliRunner().invoke(cli, [*args, "--data-dir", str(tmp_path)])
        return ended, node.heard


def test_a_task_is_explained_in_words_and_in_json(tmp_path: Path) -> None:
    shown, heard = invoke(tmp_path, {"explain": Script(EXPLAINED)}, "explain", "T1@lap")
    assert shown.exit_code == 0, shown.output
    assert heard == [("explain", {"task": "T1@lap"})]
    lines = shown.stdout.splitlines()
    for words in (
        "task T1: answered, submitted on lap",
        "term 2, 12.5 s ago: box leads (its coordinator has left)",
        "1. run python -> desk, 3.0 s ago, by box",
        "   by live offers: score 0.972; offers to be done in 1 s",
        "   expected to be done after 1.2 s",
        "   not gnu, hen: no python",
        "2. fold a text -> nobody, 1.0 s ago",
        "not known any more: what dog decided (cannot be reached)",
    ):
        assert words in lines, shown.stdout
    (desk,) = [line for line in lines if line.startswith("   desk")]
    for part in ("1 + 0 of 4 (+2 of ours)", "8 ms", "1.5 times slower", "250 ms wait + 1.0 s"):
        assert part in desk
    assert desk.endswith("chosen")
    assert any(line.endswith("refused: busy: full") for line in lines)
    assert any("box" in line and line.endswith("leads") for line in lines)
    assert any("dog" in line and line.endswith("has failed at it before") for line in lines)
    in_json, _ = invoke(tmp_path, {"explain": Script(EXPLAINED)}, "explain", "T1", "--json")
    assert json.loads(in_json.stdout) == EXPLAINED


def test_older_choices_that_are_no_longer_known_are_counted(tmp_path: Path) -> None:
    gone = [{"peer": "p1", "name": "box", "count": 7}, {"peer": "p2", "name": "desk", "count": 1}]
    told = {"explain": Script({**EXPLAINED, "forgotten": gone})}
    shown, _ = invoke(tmp_path, told, "explain", "T1")
    assert "box no longer knows 7 older choices\n" in shown.stdout
    assert "desk no longer knows 1 older choice\n" in shown.stdout


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "As seen from this node. Nothing"),
        (
            {"seen_by": "boxes", "seen_by_name": "box"},
            "As box sees it, who would lead. Nothing was begun",
        ),
        (
            {"seen_by": "mine", "seen_here_because": "no answer within 10 s"},
            "As seen from this node: box could not be asked (no answer within 10 s). Nothing",
        ),
    ],
)
def test_a_dry_run_says_whose_view_it_is(
    tmp_path: Path, more: dict[str, object], words: str
) -> None:
    (leads,) = WOULD["appointments"]  # type: ignore[misc]
    would = {**WOULD, "appointments": [{**leads, "chosen": "boxes", "name": "box"}], **more}
    shown, _ = invoke(tmp_path, {"dry_run": Script(would)}, "submit", "--dry-run", "why")
    assert words in shown.stdout.splitlines()[-1]


def test_without_a_task_the_last_choices_are_shown(tmp_path: Path) -> None:
    shown, heard = invoke(tmp_path, {"explain": Script({"decisions": []})}, "explain")
    assert heard == [("explain", {})]
    assert shown.stdout.startswith("no choice of a peer is remembered")


def test_an_unknown_task_ends_with_its_error(tmp_path: Path) -> None:
    no = Script(error=RequestRefusedError("unknown", "no peer that can be reached has a task T9"))
    ended, _ = invoke(tmp_path, {"explain": no}, "explain", "T9")
    assert ended.exit_code == 1
    assert "no peer that can be reached has a task T9" in ended.stderr
    assert ended.stdout == ""


def test_a_dry_run_asks_what_submit_would_and_says_what_would_be(tmp_path: Path) -> None:
    shown, heard = invoke(
        tmp_path, {"dry_run": Script(WOULD)}, "submit", "--dry-run", "why", "--mode", "blocks"
    )
    assert shown.exit_code == 0, shown.output
    ((verb, request),) = heard
    assert (verb, request["prompt"], request["mode"]) == ("dry_run", "why", "blocks")
    assert "follow" not in request
    lines = shown.stdout.splitlines()
    assert lines[0] == "mode blocks (asked for), model m"
    assert "box would lead" in lines
    assert "1. run python -> desk" in lines
    assert "Who leads follows from the name of the task" in shown.stdout
    assert lines[-1] == "As seen from this node. Nothing was begun, and no place is held."
    in_json, _ = invoke(tmp_path, {"dry_run": Script(WOULD)}, "submit", "--dry-run", "x", "--json")
    assert json.loads(in_json.stdout) == WOULD


def test_a_dry_run_of_what_cannot_be_done_says_why_and_ends_as_the_task_would(
    tmp_path: Path,
) -> None:
    obstacle = {"code": "no_model", "detail": "no model is usable anywhere in the mesh"}
    cannot = Script({**WOULD, "obstacle": obstacle, "exit_code": 5, "is_named": True})
    shown, _ = invoke(tmp_path, {"dry_run": cannot}, "submit", "--dry-run", "why")
    assert shown.exit_code == 5
    assert "It cannot be done now: no_model: no model is usable" in shown.stdout
    assert "Who leads follows" not in shown.stdout
    in_json, _ = invoke(tmp_path, {"dry_run": cannot}, "submit", "--dry-run", "why", "--json")
    assert in_json.exit_code == 5
    assert json.loads(in_json.stdout)["obstacle"] == obstacle


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("only", "the only one who could"),
        ("direct", "short work, without offers"),
        ("bound", "it had to be that one"),
        ("offers", "by live offers"),
        ("augury", "augury"),
    ],
)
def test_every_way_of_choosing_has_its_words(way: str, words: str) -> None:
    reply = {"decisions": [{**CHOSEN, "way": way}]}
    assert f"   {words}: " in cli_explain.explained(reply, is_terminal=False)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
names = st.sampled_from(sorted({*APPOINTED, *CHOSEN, *CHOSEN["candidates"][0]}))
odd_rows = st.lists(st.dictionaries(names, values | st.just([{"score": 1, "offer": {}}])))


@given(odd_rows, odd_rows, values)
def test_whatever_an_older_or_newer_node_says_is_shown(
    appointments: list[dict[str, object]], decisions: list[dict[str, object]], other: object
) -> None:
    reply = {
        "task": "T",
        "appointments": appointments,
        "decisions": decisions,
        "ran": other,
        "unknown": other,
        "obstacle": other,
    }
    assert cli_explain.explained(reply, is_terminal=False)
    assert cli_explain.would_go(reply, is_terminal=False)
