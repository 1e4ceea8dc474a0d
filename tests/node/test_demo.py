"""The demonstration as a person runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cluster import (
    Cluster,
    Ended,
    is_running,
    open_cluster,
    open_model_server,
    wait_until,
)

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

DEMO_S = 200.0
COUNT = """\
```python
answer["content"] = str(sum(line.startswith("class ") for line in context.splitlines()))
answer["ready"] = True
```"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """For its way to run commands; the demonstration starts nodes of its own."""
    with open_cluster(tmp_path) as cluster:
        yield cluster


def processes_of(folder: Path) -> set[int]:
    """Everybody whose command line names `folder`."""
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != 0:
            try:
                command = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if bytes(folder) in command:
                found.add(int(entry.name))
    return {pid for pid in found if is_running(pid)}


def test_the_demonstration_shows_a_task_that_survives_the_loss_of_a_node(
    cluster: Cluster, tmp_path: Path
) -> None:
    folder = tmp_path / "demo"
    with open_model_server(tmp_path, root=[COUNT]) as models:
        arguments = ("--json", "--data-dir", str(folder), "--model-url", models.url)
        done = cluster.cli(None, "demo", *arguments, timeout_s=DEMO_S)
    assert done.exit_code == 0, done.stdout[-5000:]
    assert not processes_of(folder)

    killed = [text for text in notes(done) if text.startswith("killed ")]
    assert len(killed) == 1
    blocks, rlm = done.of_kind("result")
    assert blocks["state"] == rlm["state"] == "answered"
    where = {row["what"]: row["name"] for row in blocks["ran"]}
    cells = {name for what, name in where.items() if what.startswith("cell")}
    assert cells
    assert "desktop" not in cells
    victim = killed[0].split()[1]
    # In the end all of it may be on one device: what the lost one had run moves as well.
    tried = {event["name"] for event in done.of_kind("cell")}
    assert victim in tried
    assert tried - {victim}

    library = (folder / "stdlib.txt").read_text()
    assert 9e6 < len(library) < 20e6
    # Counted here in another way than a node did.
    assert rlm["answer"] == str(library.count("\nclass "))


def notes(done: Ended) -> list[str]:
    return [event["text"] for event in done.of_kind("note")]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demonstration_leaves_nothing_running(
    cluster: Cluster, end: signal.Signals
) -> None:
    temporary = cluster.folder / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [*cluster.program, "demo", "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=cluster.environment | {"TMPDIR": str(temporary)},
        cwd=cluster.folder,
    )
    cluster.spoken.append(process)
    assert process.stdout is not None
    try:
        said: list[str] = []
        for line in process.stdout:
            said.append(json.loads(line)["text"])
            if " is up: " in said[-1]:
                break
        else:
            pytest.fail(f"no node came up: {said}")
        assert processes_of(temporary)
        process.send_signal(end)
        assert process.wait(timeout=30) == 130
        wait_until(lambda: not processes_of(temporary), "its nodes have ended", 5.0)
        assert not list(temporary.iterdir())
        assert json.loads(process.stdout.readlines()[-1])["text"] == "interrupted"
    finally:
        for pid in processes_of(temporary):
            os.kill(pid, signal.SIGKILL)


def test_a_folder_that_cannot_be_used_is_one_line_and_a_failure(cluster: Cluster) -> None:
    (cluster.folder / "taken").write_text("a file")
    done = cluster.cli(None, "demo", "--data-dir", str(cluster.folder / "taken"))
    assert done.exit_code == 1
    (line,) = done.stdout.splitlines()
    assert "the demonstration failed: " in line
