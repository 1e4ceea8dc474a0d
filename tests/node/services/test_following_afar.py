"""Following a task at another peer, beside what `test_mesh_tasks` shows of whole nodes."""

from __future__ import annotations

from typing import get_args

import pytest

from kowalski.node.core.task_ledger import TaskState
from kowalski.node.services.following_afar import state_of


@pytest.mark.parametrize("state", get_args(TaskState))
def test_a_state_that_we_know_is_what_it_says(state: TaskState) -> None:
    assert state_of(state) == state


def test_a_state_of_a_newer_peer_is_one_that_runs() -> None:
    assert state_of("pondering") == "running"
