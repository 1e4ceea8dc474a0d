"""Replies as text: complete ones read well, incomplete ones never fail."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.node import cli_render as render

PEER: dict[str, object] = {
    "peer": "12D3KooWGRUfJCFRJLoZgC6UyNWjMFJfSYrzLxu6ZXVtoH5Vsm5M",
    "name": "desk",
    "state": "alive",
    "is_self": True,
    "rtt_ms": 1.26,
    "load": 0.25,
    "cpu_percent": 50.0,
    "memory_used_fraction": 0.5,
    "languages": ["python", "bash"],
    "models": [],
    "roles": ["repl"],
    "routable": False,
    "why_not": "it is ill",
}

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6
)
keys = st.sampled_from(
    [
        *PEER,
        "gpus",
        "battery",
        "pressure",
        "temperature_c",
        "tasks",
        "peers",
        "checks",
        "ran",
        "verdict",
        "found",
        "entries",
    ]
)
rows = st.dictionaries(keys, values, max_size=6)
replies = st.dictionaries(keys, values | st.lists(rows, max_size=3), max_size=5)


@given(replies, st.booleans())
def test_no_reply_however_odd_breaks_a_view(reply: dict[str, object], terminal: bool) -> None:
    for view in (render.peers, render.tasks, render.ran):
        assert isinstance(view(reply, is_terminal=terminal), str)
    assert isinstance(render.checks(reply), str)
    assert isinstance(render.fields(reply), str)


def test_peers_are_a_table_without_empty_columns() -> None:
    shown = render.peers({"peers": [PEER]}, is_terminal=False)
    head, row = shown.splitlines()
    assert "MODELS" not in head
    assert row.split("  ")[0] == "desk (this node)"
    for part in ("..oH5Vsm5M", "alive", "1.3 ms", "0.25", "50 %", "python, bash", "it is ill"):
        assert part in row


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ({}, "-"),
        ({"temperature_c": 55.0, "swap_used_fraction": 0.01, "disk_free_bytes": 1 << 40}, "-"),
        ({"battery": {"charge": 0.8, "is_plugged": True}}, "battery 80 % (plugged in)"),
        ({"battery": {"charge": 0.8, "is_plugged": None}}, "battery 80 %"),
        (
            {"gpus": [{"used_fraction": 0.5, "memory_used_fraction": None}], "temperature_c": 91},
            "GPU 50 %, - of its memory, 91 C",
        ),
        (
            {"swap_used_fraction": 0.5, "pressure": {"io": 0.25, "cpu": 0.0, "memory": None}},
            "swap 50 %, waits for io 25 %",
        ),
        ({"disk_free_bytes": 1 << 29}, "disk 0.5 GiB free"),
    ],
)
def test_of_a_device_is_shown_what_it_has_and_what_should_worry(
    told: dict[str, object], shown: str
) -> None:
    assert render.condition(told) == shown
    table = render.peers({"peers": [{**PEER, **told}]}, is_terminal=False)
    assert (f" {shown} " in table) == (shown != "-")


def test_a_terminal_gets_the_same_facts() -> None:
    shown = render.peers({"peers": [PEER]}, is_terminal=True)
    assert "desk" in shown
    assert "\x1b" not in shown


def test_a_name_that_breaks_lines_stays_on_one() -> None:
    shown = render.peers({"peers": [{**PEER, "name": "a\nb"}]}, is_terminal=False)
    assert len(shown.splitlines()) == 2


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.25, "250 ms"),
        (12, "12.0 s"),
        (600, "10 min"),
        (7200, "2.0 h"),
        (172_800, "2 d"),
        (None, "-"),
        (True, "-"),
    ],
)
def test_durations_are_rounded_to_what_a_person_needs(value: object, shown: str) -> None:
    assert render.duration(value) == shown


def test_nothing_to_show_is_said() -> None:
    assert render.peers({}, is_terminal=False) == "no peers"
    assert render.tasks({"tasks": []}, is_terminal=False) == "no tasks"
    assert render.ran({}, is_terminal=False) == ""


def test_a_check_that_is_not_well_shows_its_cure() -> None:
    checks = [
        {"name": "clock", "verdict": "ok", "found": "fine", "cure": ""},
        {"name": "port", "verdict": "fail", "found": "taken", "cure": "choose another"},
    ]
    assert render.checks({"checks": checks}).splitlines() == [
        "ok    clock: fine",
        "fail  port: taken",
        "      choose another",
    ]


def test_a_peer_that_works_may_still_need_a_person() -> None:
    row = {"name": "desk", "routable": True, "why_not": "two machines use its identity"}
    shown = render.peers({"peers": [row]}, is_terminal=False)
    assert "two machines use its identity" in shown


def test_an_admin_is_shown_as_one() -> None:
    rows = [{"name": "desk", "roles": ["repl"], "is_admin": True}, {"name": "lap", "roles": []}]
    shown = render.peers({"peers": rows}, is_terminal=False)
    assert "repl, admin" in shown


@pytest.mark.parametrize("width", [45, 60, 100, 200])
def test_a_terminal_that_is_too_narrow_for_a_table_has_one_field_a_line(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    columns = ("NAME", "ROLES", "MODELS", "WHY NOT")
    rows = [
        ("alpha", "submit, coordinate, repl, infer, fold", "llama3.2:3b-instruct-q4_K_M", "-"),
        ("beta", "-", "-", "dial failed: connection refused"),
    ]
    shown = render.table(columns, rows, is_terminal=True)
    words = [word for row in rows for cell in row for word in cell.split() if word != "-"]
    assert all(word in shown for word in words)
    assert max(len(line) for line in shown.splitlines()) <= width
    assert ("why not" in shown) == (width < 70)
