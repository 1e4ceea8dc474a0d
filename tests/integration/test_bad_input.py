"""What people get wrong, through the real command line: a clear word, and the node goes on."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kowalski.node.control_client import VerbFailedError
from kowalski.node.local_cluster import LocalNode
from tests.integration.cluster import (
    START_S,
    Cluster,
    Ended,
    open_cluster,
    open_model_server,
    wait_until,
    whole_log,
)

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

ALIVE_S = 1.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with open_cluster(tmp_path_factory.mktemp("bad-input")) as cluster:
        cluster.start("alone", "--no-mdns").wait_until_up(START_S)
        yield cluster


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    yield shared
    sys.stdout.write(shared.logs())
    answers_at_once(shared.named("alone"))


@pytest.fixture
def node(cluster: Cluster) -> LocalNode:
    return cluster.named("alone")


def answers_at_once(node: LocalNode) -> None:
    began = time.monotonic()
    node.ask("status", silence_s=ALIVE_S)
    assert time.monotonic() - began < ALIVE_S
    assert "Traceback" not in whole_log(node)


def code_of(done: Ended) -> str | None:
    """That of a refusal; a program that ended badly has none."""
    error = done.result["error"]
    return error["code"] if isinstance(error, dict) else None


def one_line(done: Ended) -> str:
    """What stderr says; a hint may follow, indented."""
    complaint, *hints = done.stderr.splitlines()
    assert complaint.startswith("kowalski-node: "), done
    assert len(hints) <= 1, done
    return complaint


# --- work that cannot be done -------------------------------------------------------------------


def test_a_language_that_nobody_has_heard_of(cluster: Cluster, node: LocalNode) -> None:
    done = cluster.cli(node, "run", "--json", "--language", "cobol", "--code", "DISPLAY 1")
    assert (done.exit_code, done.error["exit_code"]) == (2, 2)
    assert "unknown language cobol" in one_line(done)


def test_a_language_that_no_peer_runs(tmp_path: Path) -> None:
    with open_cluster(tmp_path) as cluster:
        node = cluster.start("mute", "--no-mdns", "--no-repl")
        node.wait_until_up(START_S)
        done = cluster.cli(node, "run", "--json", "--language", "python", "--code", "1")
        assert (done.exit_code, done.error["code"]) == (5, "no_peer")
        assert "no peer runs python" in one_line(done)

        done = cluster.cli(node, "submit", "--json", "--mode", "blocks", "```python\n1\n```")
        assert (done.exit_code, done.result["state"]) == (5, "failed")
        assert done.result["reason"] == "no_language: no peer runs python"


def test_a_model_that_no_peer_has(cluster: Cluster, node: LocalNode) -> None:
    done = cluster.cli(node, "ask", "--json", "--model", "nosuch", "hello")
    assert (done.exit_code, done.error["code"]) == (5, "no_peer")
    assert "no peer has model nosuch" in one_line(done)
    done = cluster.cli(node, "submit", "--json", "--mode", "direct", "--model", "nosuch", "hello")
    assert (done.exit_code, done.result["state"]) == (5, "failed")
    assert done.result["reason"].startswith("no_model: ")


@pytest.mark.parametrize("command", ["submit", "ask"])
@pytest.mark.parametrize("prompt", ["", " \n\t "])
def test_an_empty_prompt(cluster: Cluster, node: LocalNode, command: str, prompt: str) -> None:
    done = cluster.cli(node, command, prompt)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "the prompt is empty" in done.stderr.splitlines()[-1]
    for_programs = cluster.cli(node, command, "--json", prompt)
    assert (for_programs.exit_code, for_programs.error["code"]) == (2, "usage")
    assert for_programs.error["message"] == "the prompt is empty"
    # Also whoever speaks to the socket directly is told.
    with pytest.raises(VerbFailedError, match="must not be empty") as told:
        node.ask(command, {"prompt": prompt})
    assert told.value.exit_code == 2


def test_a_prompt_without_code_in_mode_blocks(cluster: Cluster, node: LocalNode) -> None:
    done = cluster.cli(node, "submit", "--json", "--mode", "blocks", "no code here")
    assert (done.exit_code, done.result["state"]) == (1, "failed")
    assert done.result["reason"].startswith("no_blocks: ")


def test_a_task_that_nobody_submitted(cluster: Cluster, node: LocalNode) -> None:
    for command in ("tasks", "cancel"):
        done = cluster.cli(node, command, "--json", "nosuch")
        assert (done.exit_code, done.error["code"]) == (1, "unknown")
        assert "no peer that can be reached has a task nosuch" in one_line(done)


def test_a_context_file_that_is_not_there(cluster: Cluster, node: LocalNode) -> None:
    done = cluster.cli(node, "submit", "--context", "/nosuch/file", "hello")
    assert done.exit_code == 2
    assert "/nosuch/file: no such file or directory" in done.stderr


# --- programs that misbehave --------------------------------------------------------------------

ENDLESS = {"python": "while True: pass", "bash": "while :; do :; done"}


@pytest.mark.parametrize("language", ENDLESS)
def test_a_program_that_never_ends(cluster: Cluster, node: LocalNode, language: str) -> None:
    code = ENDLESS[language]
    limit = ("--timeout", "1s")
    done = cluster.cli(node, "run", "--json", *limit, "--language", language, "--code", code)
    # Who notices first tells: the peer that stops the program, or who waits for the peer.
    assert done.exit_code == 1
    if done.result.get("status") != "timeout":
        assert code_of(done) == "timeout", done
        assert "within 1 s" in one_line(done)
    done = cluster.cli(
        node, "submit", "--json", *limit, "--mode", "blocks", f"```{language}\n{code}\n```"
    )
    assert (done.exit_code, done.result["state"]) == (1, "failed")
    assert done.result["reason"].startswith("timeout: ")
    wait_until(lambda: node.ask("status")["load"] == 0.0, "nothing runs any more", 10.0)


def test_two_hundred_megabytes_of_output(cluster: Cluster, node: LocalNode) -> None:
    code = "import sys\nline = 'x' * 999_999 + '\\n'\nfor _ in range(200): sys.stdout.write(line)"
    done = cluster.cli(node, "run", "--json", "--language", "python", "--code", code)
    assert done.exit_code == 1
    assert done.result["status"] == "output_flood"
    assert "bytes of output" in done.result["error"]
    assert len(done.stdout) < 16e6
    # In a task it is the outcome of the cell, head and tail are kept, and the task goes on.
    prompt = f"```python\n{code}\n```\n```bash\necho after it\n```"
    done = cluster.cli(node, "submit", "--json", "--mode", "blocks", prompt)
    assert done.exit_code == 0, done.result
    assert {cell["status"] for cell in done.of_kind("cell")} >= {"output_flood", "done"}
    assert "after it" in done.result["answer"]
    assert len(done.result["answer"]) < 1e6


def test_output_that_is_no_utf8(cluster: Cluster, node: LocalNode) -> None:
    code = r"printf 'caf\351 \377\376\n'; printf 'ok\n' >&2"
    done = cluster.cli(node, "run", "--json", "--language", "bash", "--code", code)
    assert done.exit_code == 0
    texts = {event["stream"]: event["text"] for event in done.of_kind("output")}
    assert texts == {"stdout": "caf\ufffd \ufffd\ufffd\n", "stderr": "ok\n"}
    done = cluster.cli(node, "submit", "--json", "--mode", "blocks", f"```bash\n{code}\n```")
    assert done.exit_code == 0
    assert "caf\ufffd \ufffd\ufffd" in done.result["answer"]


def test_a_program_that_fails_tells_how(cluster: Cluster, node: LocalNode) -> None:
    done = cluster.cli(node, "run", "--language", "python", "--code", "print('so far')\n1/0")
    assert (done.exit_code, done.stdout) == (1, "so far\n")
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert "exit code 1 on alone" in done.stderr
    done = cluster.cli(node, "run", "--json", "--language", "bash", "--code", "exit 7")
    assert (done.exit_code, done.result["exit_code"]) == (7, 7)


# --- a backend that goes away -------------------------------------------------------------------


def test_a_model_server_that_goes_down(cluster: Cluster, tmp_path: Path) -> None:
    with open_model_server(tmp_path) as models:
        node = cluster.start("thinker", "--no-mdns", "--no-repl", "--backend", models.url)
        node.wait_until_up(START_S)
        done = cluster.cli(node, "ask", "--json", "ECHO: up")
        assert (done.exit_code, done.result["text"]) == (0, "up")
        models.process.kill()
        models.process.wait()
        done = cluster.cli(node, "ask", "--json", "hello")
        assert done.exit_code in {1, 5}
        assert done.error["code"] in {"peers_failed", "no_peer"}
        one_line(done)
        done = cluster.cli(node, "submit", "--json", "--mode", "direct", "hello")
        assert done.exit_code in {1, 5}
        assert done.result["state"] == "failed"
        assert done.result["reason"].partition(":")[0] in {"no_model", "peers_failed", "no_peer"}
        answers_at_once(node)
        assert node.stop() == 0


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"p2p_prot = 1", "unknown key 'p2p_prot'; did you mean 'p2p_port'?"),
        (b"p2p_port = 'x'", "p2p_port: "),
        (b"p2p_port = ", "not TOML: "),
        (b'name = "\xff"', "not UTF-8 at byte 8"),
        (None, "no such file or directory"),
    ],
    ids=["unknown-key", "wrong-type", "not-toml", "not-utf8", "absent"],
)
def test_a_configuration_that_cannot_be_read(
    cluster: Cluster, tmp_path: Path, content: bytes | None, complaint: str
) -> None:
    file = tmp_path / "config.toml"
    if content is not None:
        file.write_bytes(content)
    done = cluster.cli(None, "start", "--config", str(file))
    assert (done.exit_code, done.stdout) == (2, "")
    assert one_line(done).startswith(f"kowalski-node: {file}: {complaint}")


def test_a_port_that_is_taken(cluster: Cluster, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        where = ("--listen-host", "127.0.0.1", "--p2p-port", str(port), "--no-mdns")
        done = cluster.cli(None, "start", "--data-dir", str(tmp_path / "late"), *where)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"port {port} is in use" in one_line(done)


def test_a_data_directory_that_another_node_lives_in(cluster: Cluster, node: LocalNode) -> None:
    done = cluster.cli(node, "start", "--p2p-port", "0", "--listen-host", "127.0.0.1", "--no-mdns")
    assert done.exit_code == 2
    assert f"a node is already running (pid {node.process.pid})" in one_line(done)


def test_a_node_that_does_not_run(cluster: Cluster, tmp_path: Path) -> None:
    done = cluster.cli(None, "status", "--json", "--data-dir", str(tmp_path / "nobody"))
    assert (done.exit_code, done.error["code"]) == (3, "not_running")
    assert done.error["hint"] == "start one with: kowalski-node start"
    assert "no node is running at " in one_line(done)
