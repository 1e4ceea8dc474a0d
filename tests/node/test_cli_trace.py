"""A journal as lines for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.node import cli_trace
from kowalski.node.cli_trace import WORDS_CHARS
from kowalski.node.task_view import journal_lines
from kowalski.protocol.codec import encode
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.base import Message
from kowalski.rlm.journal import GENESIS, entry_of
from tests.protocol.examples import EXAMPLES

KINDS = sorted(kind for kind in EXAMPLES if kind.startswith("journal/"))
PEER = PeerId("12D3KooWBox")


def row(event: Message) -> dict[str, object]:
    assert isinstance(event, journal.SessionEvent)
    (made,) = journal_lines(TaskId("t"), [entry_of(1, 0, GENESIS, event)], lambda peer: peer[-4:])
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_entry_says_something(kind: str) -> None:
    words = cli_trace.what(row(EXAMPLES[kind]))
    assert words
    assert "None" not in words


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (journal.Opened(mode="blocks", why="it has blocks"), "mode blocks: it has blocks"),
        (journal.CancelHeard(reason="enough"), "enough"),
        (journal.Closed(outcome="answered", answer="42"), "answered: 42"),
        (
            journal.ChildHappened(
                cell=3, ordinal=1, event=encode(journal.CancelHeard(reason="enough"))
            ),
            "cell 3, child of call 1: cancel-heard: enough",
        ),
        (
            journal.ChildHappened(cell=3, ordinal=1, event=b"\xff of a newer peer"),
            "cell 3, child of call 1",
        ),
        (
            journal.SubCallsAnswered(
                answers=tuple(
                    journal.SubCallAnswered(cell=3, ordinal=n, prompt=GENESIS, model="m", text="4")
                    for n in (5, 6)
                )
            ),
            "2 at once: cell 3, call 5: m: 4",
        ),
        (
            journal.CellDiverged(cell=3, language="python", peer=PEER, names=("now", "x")),
            "cell 3: left other variables behind: now, x",
        ),
        (
            journal.CellFailed(cell=0, code="peers_failed", detail="box: gone"),
            "cell 0: peers_failed: box: gone",
        ),
    ],
)
def test_an_entry_in_a_few_words(event: journal.SessionEvent, words: str) -> None:
    assert cli_trace.what(row(event)) == words


def test_long_words_are_cut_and_lines_are_joined() -> None:
    closed = journal.Closed(outcome="answered", answer="one\ntwo " * 100)
    words = cli_trace.what(row(closed)).removeprefix("answered: ")
    assert words.startswith("one two one two")
    assert len(words) == WORDS_CHARS


def test_the_whole_is_a_table_with_what_the_ledger_did_below_it() -> None:
    reply = {
        "journal": [row(EXAMPLES["journal/cell-started"]), row(EXAMPLES["journal/closed"])],
        "ledger": ["0.000 s  Submitted", "0.001 s  GrantTerm"],
    }
    lines = cli_trace.trace(reply, is_terminal=False).splitlines()
    assert lines[0].split()[:4] == ["ENTRY", "TERM", "WHAT", "PEER"]
    assert len(lines) == 3 + 1 + 1 + 2
    assert lines[-1] == "0.001 s  GrantTerm"
    assert cli_trace.trace({}, is_terminal=False) == "no entries"


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
names = st.sampled_from(["kind", "index", "cell", "usage", "text", "peer", "duration_s", "answer"])


@given(st.lists(st.dictionaries(names, json_values)), st.sampled_from(KINDS))
def test_whatever_an_older_or_newer_node_says_is_shown(
    rows: list[dict[str, object]], kind: str
) -> None:
    told = [{**one, "kind": kind} for one in rows]
    assert cli_trace.trace({"journal": [*rows, *told]}, is_terminal=False)
