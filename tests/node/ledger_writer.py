"""A process that writes to a ledger, one line of standard output for each write that is done.

`python ledger_writer.py LEDGER HOW_MANY [FILE_BYTES_MAX]`: with a limit it goes on after the first
failed write with the limit lifted.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from kowalski.node.core.task_ledger import Task
from kowalski.node.storage import LedgerStorage, StorageError, open_ledger_storage
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.journal import CancelHeard
from kowalski.protocol.messages.task import Entry, TaskSpec
from kowalski.rlm.journal import GENESIS, digest, entry_of

TASK = TaskId("task")
REASON = "a reason of some length " * 40


def fresh_task() -> Task:
    spec = TaskSpec(prompt="do it", max_iterations=5, timeout_s=60.0)
    return Task(TASK, spec, submitted_unix_s=1_800_000_000)


def next_of(task: Task) -> tuple[Task, Entry]:
    entry = entry_of(1, task.entries, task.last_digest, CancelHeard(reason=REASON))
    mark = digest(TASK, entry)
    after = Task(
        TASK,
        task.spec,
        task.submitted_unix_s,
        state="running",
        term=task.entries + 1,
        entries=task.entries + 1,
        digests=(*task.digests, mark),
    )
    return after, entry


def say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def write(storage: LedgerStorage, how_many: int) -> None:
    task = fresh_task()
    assert task.last_digest == GENESIS
    storage.save(task)
    say("0")
    while task.entries < how_many:
        after, entry = next_of(task)
        try:
            storage.append(after, entry, after.last_digest)
        except StorageError as full:
            say(f"full {full}")
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            continue
        task = after
        say(str(task.entries))


if __name__ == "__main__":
    with open_ledger_storage(Path(sys.argv[1])) as opened:
        if len(sys.argv) > 3:
            hard_limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), hard_limit))
        write(opened, int(sys.argv[2]))
