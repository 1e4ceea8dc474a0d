"""A submitter that is killed and never comes back: its detached task has an answer all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cluster import Cluster, open_cluster, wait_until

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

ROLES = {
    "asker": "submit",
    "lead1": "submit,coordinate,repl",
    "lead2": "submit,coordinate,repl",
    "lead3": "submit,coordinate,repl",
}

PROMPT = """\
```python
import time
total = sum(range(1000))
time.sleep(2)
print("first", total)
```

```python
print("second", total + 1)
```
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with open_cluster(tmp_path) as cluster:
        cluster.form({name: ("--roles", roles) for name, roles in ROLES.items()})
        yield cluster


def test_any_peer_has_the_answer_of_a_submitter_that_is_gone_for_good(cluster: Cluster) -> None:
    asker = cluster.named("asker")
    arguments = ("--mode", "blocks", "--task-id", "left-behind", PROMPT)
    taken = cluster.cli(asker, "submit", "--detach", *arguments)
    assert (taken.exit_code, taken.stdout) == (0, "left-behind\n"), taken
    asker.kill()

    shown = cluster.cli(cluster.named("lead2"), "attach", "left-behind", timeout_s=90.0)
    assert shown.exit_code == 0, shown
    assert shown.stdout.count("second 499501") == 1, "the answer, once"

    def is_known_everywhere() -> bool:
        rows = [
            [row for row in node.ask("tasks")["tasks"] if row["task"] == "left-behind"]
            for node in (cluster.named(name) for name in ("lead1", "lead2", "lead3"))
        ]
        return all([row["state"] for row in found] == ["answered"] for found in rows)

    wait_until(is_known_everywhere, "every peer lists it as answered, once")
