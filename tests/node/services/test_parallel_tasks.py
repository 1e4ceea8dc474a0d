"""Many tasks at once on one node, each with its own variables, files, questions and output."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.node.services.real_room import PATIENCE_S, RealRoom, cell, open_real_room

pytestmark = [pytest.mark.real, pytest.mark.trio]

TASKS = 50
FIRST = """
import os, tempfile
me = 'ME'
for place in ('.', tempfile.gettempdir()):
    with open(f'{place}/mine', 'w') as file: file.write(me)
print(me, flush=True)
"""
SECOND = "for _ in range(3): print(llm_query(me), flush=True)"
THIRD = """
found = [me, *(open(f'{place}/mine').read() for place in ('.', tempfile.gettempdir()))]
print(*found, sorted(os.listdir('.')))
answer = me
"""


async def one_task(room: RealRoom, me: str) -> None:
    first = await room.run(cell(FIRST.replace("ME", me), task=me, number=0))
    assert first.output == f"{me}\n".encode()
    (left,) = first.done.files
    path = room.two.room.store.path(left.content.hash)
    assert path is not None
    assert (left.name, path.read_text()) == ("mine", me)
    second = await room.run(
        cell(SECOND, task=me, number=1), reply=lambda call: f"{call.prompt}, of {me}"
    )
    assert second.prompts == [me] * 3
    assert second.output == f"{me}, of {me}\n".encode() * 3
    third = await room.run(cell(THIRD, task=me, number=2))
    assert third.done.stdout == f"{me} {me} {me} ['mine']\n"
    assert third.done.answer is not None
    assert third.done.answer.content == me


async def test_fifty_tasks_at_once_see_nothing_of_each_other(tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE_S):
        async with open_real_room(tmp_path, slots=TASKS) as room, trio.open_nursery() as nursery:
            for number in range(TASKS):
                nursery.start_soon(one_task, room, f"task-{number}")
