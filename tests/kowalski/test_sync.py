"""The same without an event loop; and the examples of docs/how-to/from-python.md, as they stand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kowalski import ExecutionResult, Task, errors
from kowalski.node.control_messages import SubmitRequest
from kowalski.sync import Kowalski
from tests.architecture.source_tree import ROOT

pytestmark = pytest.mark.real

PAGE = ROOT / "docs" / "how-to" / "from-python.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)

SCRIPT = {
    "root": [
        "```python\nfound = [one for one in context.splitlines() if 'secret' in one]\n```",
        "```python\nFINAL(found[0].split()[-1])\n```",
    ],
    "counts_turns": True,
    "by_substring": {
        "six times seven": "42",
        "capital of Norway": '{"name": "Oslo", "inhabitants": 700000}',
        "Say hello": "hello",
    },
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data directory of a node with a model called `small`."""
    folder = tmp_path_factory.mktemp("sync")
    (folder / "script.json").write_text(json.dumps(SCRIPT))
    command = [sys.executable, "-m", "tests.scripted_model_server", "--port", "0"]
    command += ["--script", str(folder / "script.json"), "--model", "small"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as server:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        builder = Kowalski.builder().with_own_node("--backend", url).with_node(folder / "node")
        with builder.build():
            yield folder / "node"
        server.terminate()


def test_tasks_batches_and_calls_block_until_they_are_done(node: Path) -> None:
    with Kowalski.builder().with_node(node).with_model("small").build() as k:
        assert k.execute("What is six times seven?", answer_type=int).value == 42
        first, second = k.execute_batch(["Say hello", Task("ECHO: x", mode="direct")])
        assert isinstance(first, ExecutionResult)
        assert isinstance(second, ExecutionResult)
        assert (first.text, second.text) == ("hello", "x")
        assert k.ask("Say hello").model == "small"
        assert k.run("python", "print(1)").check().stdout == "1\n"
        assert k.models() == ("small",)
        with pytest.raises(errors.DeviceNotFound):
            k.device("nobody")
        with k.subscribe_to_metrics() as readings:
            assert next(readings).tasks_done == 3
        assert k.attach(first.task_id).text == "hello"
        assert k.trace(first.task_id)["journal"]


def test_threads_share_one_client(node: Path) -> None:
    with Kowalski.builder().with_node(node).build() as k:
        texts: list[str] = []
        threads = [
            threading.Thread(target=lambda n=n: texts.append(k.ask(f"ECHO: {n}").text))
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert sorted(texts) == sorted(map(str, range(8)))


def test_progress_can_be_read_while_another_thread_works(node: Path) -> None:
    with (
        Kowalski.builder().with_node(node).build() as k,
        k.subscribe_to_progress("mine") as updates,
    ):
        thread = threading.Thread(target=lambda: k.execute("Say hello", "mine"))
        thread.start()
        kinds = []
        for update in updates:
            kinds.append(update.kind)
            if update.kind == "ended":
                break
        thread.join(60)
    assert kinds[0] == "submitted"
    assert "turn" in kinds


def test_an_error_while_building_is_raised_where_the_block_begins(tmp_path: Path) -> None:
    with pytest.raises(errors.NetworkError, match="no node is running"):
        Kowalski.builder().with_node(tmp_path).build().__enter__()


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs(node: Path, number: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", EXAMPLES[number]],
        env={"KOWALSKI_DATA_DIR": str(node), "PATH": "/usr/bin:/bin", "HOME": str(node.parent)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    expected = ["42\n1 calls", "hello\n42", "4711 2 2", "Oslo 700001", "19", "1 devices"]
    expected += ["stopped; so far:", "\n42"]
    assert expected[number] in ran.stdout, ran.stdout


def test_the_page_names_every_option_of_a_task() -> None:
    told = set(re.findall(r"`(\w+)`", PAGE.read_text()))
    set_otherwise = {"prompt", "task_id", "context", "mode", "model", "json_schema", "follow"}
    of_cluster = {"devices", "failover", "retries_max", "retry_delay_s", "retry_is_exponential"}
    assert set(SubmitRequest.model_fields) - set_otherwise - of_cluster <= told
