from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.protocol import codec
from kowalski.protocol.errors import RemoteProtocolError
from kowalski.protocol.ids import ContentHash, PeerId, TaskId
from kowalski.protocol.limits import TEXT_BYTES_MAX
from kowalski.protocol.messages.base import Cancel
from kowalski.protocol.messages.journal import (
    BudgetSpent,
    CancelHeard,
    CellFinished,
    Closed,
    Opened,
)
from kowalski.protocol.messages.repl import AnswerVariable
from kowalski.protocol.messages.task import Entry
from kowalski.rlm.journal import GENESIS, check_chain, digest, entry_of, event_of

TASK = TaskId("01JTASK")
GOLDEN = "92378f9b4869507d442b417b0650c99f7f2623e45adfc464d8db65e041324a62"
EVENTS = (
    Opened(mode="rlm", model="m", why="long input"),
    CancelHeard(reason="enough"),
    Closed(outcome="cancelled", answer="4"),
)


def chain(*events: Opened | CancelHeard | Closed | BudgetSpent, task: TaskId = TASK) -> list[Entry]:
    entries: list[Entry] = []
    parent = GENESIS
    for index, event in enumerate(events):
        entries.append(entry_of(1, index, parent, event))
        parent = digest(task, entries[-1])
    return entries


def test_an_event_comes_back_out_of_its_entry() -> None:
    assert tuple(event_of(entry) for entry in chain(*EVENTS)) == EVENTS


def test_a_whole_chain_ends_in_the_digest_of_its_last_entry() -> None:
    entries = chain(*EVENTS)
    assert check_chain(TASK, entries) == digest(TASK, entries[-1])


def test_no_entries_end_where_they_began() -> None:
    assert check_chain(TASK, ()) == GENESIS


def test_a_chain_can_be_checked_in_pieces() -> None:
    entries = chain(*EVENTS)
    middle = check_chain(TASK, entries[:1])
    assert check_chain(TASK, entries[1:], parent=middle, index=1) == check_chain(TASK, entries)


def test_the_digest_is_the_same_for_ever() -> None:
    """Journals on disks outlive releases: another number here is a broken promise."""
    entry = Entry(term=7, index=3, parent=ContentHash("ab" * 32), body=b"body")
    assert digest(TASK, entry) == GOLDEN


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda entries: entries[1:], "entry 1 where 0 was due"),
        (lambda entries: [entries[0], entries[2]], "entry 2 where 1 was due"),
        (lambda entries: [*entries[:2], entries[1]], "entry 1 where 2 was due"),
        (
            lambda entries: [entries[0].model_copy(update={"body": b"x"}), *entries[1:]],
            "entry 1 stands on",
        ),
        (lambda entries: [entries[0].model_copy(update={"term": 2}), entries[1]], "stands on"),
        (lambda entries: [entries[0].model_copy(update={"parent": "f" * 64})], "stands on f"),
    ],
)
def test_a_broken_chain_is_refused(change: object, complaint: str) -> None:
    assert callable(change)
    with pytest.raises(RemoteProtocolError, match=complaint):
        check_chain(TASK, change(chain(*EVENTS)))


def test_a_term_never_falls() -> None:
    first = entry_of(2, 0, GENESIS, EVENTS[0])
    second = entry_of(1, 1, digest(TASK, first), EVENTS[1])
    with pytest.raises(RemoteProtocolError, match="term 1 after term 2"):
        check_chain(TASK, (first, second))


def test_the_journal_of_another_task_does_not_fit() -> None:
    with pytest.raises(RemoteProtocolError):
        check_chain(TaskId("other"), chain(*EVENTS))


@pytest.mark.parametrize("body", [b"", b"\xff", codec.encode(Cancel())])
def test_what_is_no_journal_message_is_the_peers_fault(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        event_of(Entry(term=1, index=0, parent=GENESIS, body=body))


def test_the_largest_event_fits_an_entry() -> None:
    text = "\0" * TEXT_BYTES_MAX
    event = CellFinished(
        cell=100_000,
        peer=PeerId("1" * 64),
        status="output_flood",
        output=text,
        answer=AnswerVariable(content=text, is_ready=True),
        variables_digest="f" * 64,
    )
    assert event_of(entry_of(2**53, 1_000_000, GENESIS, event)) == event


ENTRIES = st.builds(
    Entry,
    term=st.integers(1, 2**53),
    index=st.integers(0, 1_000_000),
    parent=st.binary(min_size=32, max_size=32).map(bytes.hex),
    body=st.binary(max_size=40),
)
TASKS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True).map(TaskId)


@given(TASKS, ENTRIES, TASKS, ENTRIES)
def test_two_entries_share_a_digest_only_if_they_are_the_same(
    task: TaskId, entry: Entry, other_task: TaskId, other: Entry
) -> None:
    same = (task, entry) == (other_task, other)
    assert (digest(task, entry) == digest(other_task, other)) == same


@given(TASKS, ENTRIES)
def test_a_digest_covers_every_field(task: TaskId, entry: Entry) -> None:
    changed = [
        entry.model_copy(update={"term": entry.term + 1}),
        entry.model_copy(update={"index": entry.index + 1}),
        entry.model_copy(update={"parent": ContentHash("0" * 63 + "1")}),
        entry.model_copy(update={"body": entry.body + b"\0"}),
    ]
    digests = {digest(task, other) for other in changed} | {digest(TaskId(task + "x"), entry)}
    assert digest(task, entry) not in digests
    assert len(digests) == 5
