"""The largest things that can happen fit into an entry, and an entry into a frame."""

from __future__ import annotations

import pytest

from kowalski.protocol.codec import decode, encode
from kowalski.protocol.limits import CODE_BYTES_MAX, OUTPUT_CHARS_SHOWN, TEXT_BYTES_MAX
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.repl import AnswerVariable
from kowalski.protocol.messages.task import Entry, EntryOffered, Prefix
from tests.protocol.examples import PARENT, REF, TASK, USAGE, WORKER

LONG = "x" * TEXT_BYTES_MAX
LARGEST: list[Message] = [
    journal.ModelReplied(call=1, text=LONG, model="m", peer=WORKER, usage=USAGE),
    journal.CellStarted(cell=1, language="python", code="x" * CODE_BYTES_MAX, peer=WORKER),
    journal.CellFinished(
        cell=1,
        peer=WORKER,
        status="ok",
        output="🐋" * OUTPUT_CHARS_SHOWN * 2,
        full=REF,
        answer=AnswerVariable(content=LONG, is_ready=True),
    ),
    journal.Folded(text=LONG, original=REF, source_tokens=1, tokens=1, peer=WORKER),
    journal.Closed(outcome="answered", answer=LONG, full=REF),
]


@pytest.mark.parametrize("happened", LARGEST, ids=lambda happened: happened.KIND)
def test_the_largest_entry_travels_alone_and_in_a_prefix(happened: Message) -> None:
    entry = Entry(term=2**53, index=1_000_000, parent=PARENT, body=encode(happened))
    for message in (
        EntryOffered(task=TASK, entry=entry),
        Prefix(task=TASK, start=0, entries=(entry,)),
    ):
        assert decode(encode(message)) == message
    assert decode(entry.body) == happened


def test_an_entry_keeps_the_bytes_that_were_written() -> None:
    """A digest covers them, so they are never encoded again: not even if that would be shorter."""
    verbose = bytes.fromhex("8301" + "6e") + b"journal/opened" + b"\xa1\x64mode\x78\x03rlm"
    entry = Entry(term=1, index=0, parent=PARENT, body=verbose)
    offered = decode(encode(EntryOffered(task=TASK, entry=entry)))
    assert isinstance(offered, EntryOffered)
    assert offered.entry.body == verbose
    opened = decode(verbose)
    assert opened == journal.Opened(mode="rlm")
    assert encode(opened) != verbose
