"""Three machines on one switch: they find each other, and each does its part of a task."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cluster import (
    START_S,
    Cluster,
    entering,
    open_cluster,
    open_model_server,
    wait_until,
)
from tests.netns import Machine, lan, missing

pytestmark = [pytest.mark.real, pytest.mark.netns]

ROLES = {"a": "submit", "b": "submit,coordinate", "c": "submit,repl,infer,fold"}
MODEL_PORT = 8080

LOOK = """\
```python
first = llm_query('ECHO: alpha')
rest = llm_query_batched(['ECHO: beta', 'ECHO: gamma', 'ECHO: delta'])
print(len(context), first, rest)
```"""
ANSWER = """\
```python
answer['content'] = ' '.join([first, *rest])
answer['ready'] = True
```"""


@dataclasses.dataclass(frozen=True)
class Home:
    """Submitter a, coordinator b, executor c; a model server beside c that only c can reach."""

    machines: dict[str, Machine]
    cluster: Cluster

    def stats(self) -> dict[str, Any]:
        code = (
            "import urllib.request as r;"
            f"print(r.urlopen('http://127.0.0.1:{MODEL_PORT}/stats').read().decode())"
        )
        stats: dict[str, Any] = json.loads(self.machines["c"].run(sys.executable, "-c", code))
        return stats

    def submit(self, *arguments: str) -> dict[str, Any]:
        done = self.cluster.cli(self.cluster.named("a"), "submit", "--json", *arguments)
        assert done.exit_code == 0, done
        return done.result

    def names(self, node: str, what: str) -> set[str]:
        """Whom `node` would send work of this role to."""
        rows = self.cluster.named(node).ask("peers")["peers"]
        assert isinstance(rows, list)
        return {row["name"] for row in rows if what in row["roles"] and row["routable"]}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("machines")
    if why_not := missing():
        pytest.skip(why_not)
    with contextlib.ExitStack() as stack:
        machines = dict(zip(ROLES, stack.enter_context(lan(len(ROLES))), strict=True))
        models = open_model_server(
            folder,
            *("--port", str(MODEL_PORT)),
            root=(LOOK, ANSWER),
            prefix=entering(machines["c"]),
        )
        stack.enter_context(models)
        nodes = stack.enter_context(open_cluster(folder))

        def start(name: str, *options: str) -> None:
            nodes.start(name, "--roles", ROLES[name], *options, prefix=entering(machines[name]))

        start("a")
        nodes.named("a").wait_until_up(START_S)
        line = nodes.named("a").invite(uses=2)
        start("b", "--join", line)
        start("c", "--join", line)
        nodes.wait_until_met(START_S)
        # They met by the line's address and each other's word. Now they know nothing but who
        # they are.
        for name in ROLES:
            assert nodes.named(name).stop() == 0
            (nodes.named(name).data_dir / "peers.json").unlink()
        for name in ROLES:
            start(name)
        for name in ROLES:
            nodes.named(name).wait_until_up(START_S)
        yield Home(machines, nodes)


@pytest.fixture
def home(shared: Home) -> Iterator[Home]:
    yield shared
    sys.stdout.write(shared.cluster.logs())


def test_machines_that_know_no_address_find_each_other_by_mdns(home: Home) -> None:
    home.cluster.wait_until_met(START_S)
    assert home.cluster.named("c").ask("status")["discovery"] == "mdns"
    addresses = {
        row["name"]: row["addresses"] for row in _rows(home.cluster.named("b").ask("peers"))
    }
    assert addresses["c"] == [f"/ip4/{home.machines['c'].ip}/tcp/4170"]


def test_a_task_of_one_is_led_by_the_second_and_runs_on_the_third(
    home: Home, tmp_path: Path
) -> None:
    home.cluster.wait_until_met(START_S)
    numbers = tmp_path / "numbers.txt"
    numbers.write_text("\n".join(str(number) for number in range(1000)))
    prompt = (
        "Sum them up.\n\n"
        "```python\nnumbers = [int(line) for line in context.split()]\nprint(sum(numbers))\n```\n"
        '```bash\nwc -l < "$CONTEXT"\n```\n'
        "```python\nprint(max(numbers))\n```\n"
    )
    done = home.submit("--mode", "blocks", "--context", str(numbers), prompt)
    assert done["state"] == "answered"
    assert done["coordinator_name"] == "b"
    assert done["term"] == 1
    assert {row["what"]: row["name"] for row in done["ran"] if row["what"].startswith("cell")} == {
        "cell 0 (python)": "c",
        "cell 1 (bash)": "c",
        "cell 2 (python)": "c",
    }


def test_a_model_that_only_one_machine_reaches_answers_the_others(home: Home) -> None:
    wait_until(lambda: "c" in home.names("a", "infer"), "c is known to have a model")
    before = home.stats()
    done = home.submit("--mode", "direct", "ECHO: from the far end")
    assert done["answer"] == "from the far end"
    assert [(row["what"], row["name"]) for row in done["ran"]] == [("call 0 (scripted)", "c")]
    assert home.stats()["calls"] == before["calls"] + 1


def test_a_model_that_writes_code_asks_models_from_within_it(home: Home, tmp_path: Path) -> None:
    wait_until(lambda: "c" in home.names("a", "infer"), "c is known to have a model")
    letters = tmp_path / "letters.txt"
    letters.write_text("x" * 12_345)
    before = home.stats()
    done = home.submit("--mode", "rlm", "--context", str(letters), "Which letters are there?")
    assert done["answer"] == "alpha beta gamma delta"
    assert done["coordinator_name"] == "b"
    assert {row["name"] for row in done["ran"]} == {"c"}
    stats = home.stats()
    assert stats["root_calls"] - before["root_calls"] == 2
    assert stats["calls"] - before["calls"] == 2 + 4
    assert done["stats"]["calls"] == 6


def test_tokens_are_shown_while_the_model_speaks_and_hanging_up_stops_it(home: Home) -> None:
    wait_until(lambda: "c" in home.names("a", "infer"), "c is known to have a model")
    before = home.stats()
    prompt = "TOKENS: 5\nFAULT: stall 3"
    asking = home.cluster.begin_cli(home.cluster.named("a"), "ask", "--json", prompt)
    assert asking.stdout is not None
    deltas = [json.loads(asking.stdout.readline())["text"] for _ in range(3)]
    assert "".join(deltas) == "w0 w1 w2"
    assert home.stats()["in_flight"] == 1
    asking.send_signal(signal.SIGINT)
    assert asking.wait(timeout=20) == 130
    wait_until(lambda: home.stats()["in_flight"] == 0, "the model server sees the client leave")
    assert home.stats()["clients_left"] == before["clients_left"] + 1


def test_one_call_tells_its_usage_and_who_answered(home: Home) -> None:
    wait_until(lambda: "c" in home.names("a", "infer"), "c is known to have a model")
    done = home.cluster.cli(home.cluster.named("a"), "ask", "--json", "TOKENS: 7")
    assert done.exit_code == 0, done
    assert done.result["text"] == "w0 w1 w2 w3 w4 w5 w6"
    assert done.result["name"] == "c"
    assert done.result["usage"]["completion_tokens"] == 7
    assert done.result["attempts"] == 1


def test_a_long_text_is_folded_where_folding_is_offered(home: Home, tmp_path: Path) -> None:
    wait_until(lambda: "c" in home.names("a", "fold"), "c is known to fold")
    filler = "The weather was as it often is, and nobody had much to say about it.\n"
    text = tmp_path / "long.txt"
    text.write_text(filler * 2000 + "The vault's code is 4711-XK.\n" + filler * 2000)
    arguments = ("fold", "--json", "--budget-tokens", "200", "--question", "the vault's code?")
    done = home.cluster.cli(home.cluster.named("a"), *arguments, str(text))
    assert done.exit_code == 0, done
    assert done.result["name"] == "c"
    assert done.result["tokens"] <= 200
    assert "4711-XK" in done.result["text"]


def _rows(reply: dict[str, object]) -> list[dict[str, Any]]:
    rows = reply["peers"]
    assert isinstance(rows, list)
    return rows
