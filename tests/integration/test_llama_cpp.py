"""Real llama.cpp behind one node, asked from another: the protocol, never the prose."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cluster import ROOT, START_S, Cluster, Ended, open_cluster, wait_until
from tests.tiny_gguf import CONTEXT_TOKENS, make_tiny_gguf
from tests.tiny_llama_server import MODEL

pytest.importorskip("xllamacpp", reason="the extra [llama] is not installed")
pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

OWN = "tiny"
"""As the node names the file."""

# Greedy, because then the tiny model never says that it is done: more than ten seconds of work.
ENDLESS = ("--model", MODEL, "--temperature", "0", "--max-tokens", str(CONTEXT_TOKENS - 200))


@contextlib.contextmanager
def _llama_server(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """One slot, so that whoever holds it holds up everybody."""
    model = folder / "tiny.gguf"
    make_tiny_gguf(model)
    with (folder / "llama.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.tiny_llama_server", str(model), "1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            cwd=ROOT,
        )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        assert url, (folder / "llama.log").read_text(errors="replace")
        yield url
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, str]]:
    """Two nodes, `asker` without a model, and where the model server of the other one is."""
    folder = tmp_path_factory.mktemp("llama")
    with open_cluster(folder) as cluster, _llama_server(folder, cluster.environment) as url:
        # The same weights once more, in a child of the node itself: that one has embeddings.
        own = f"{folder / 'tiny.gguf'}?threads=1&slots=1"
        thinker = ("--roles", "submit,infer,fold", "--backend", url, "--backend", own)
        cluster.form({"asker": ("--roles", "submit"), "thinker": thinker})
        yield cluster, url


@pytest.fixture
def cluster(llama: tuple[Cluster, str]) -> Iterator[Cluster]:
    yield llama[0]
    sys.stdout.write(llama[0].logs())


@pytest.fixture
def is_busy(llama: tuple[Cluster, str]) -> Callable[[], bool]:
    def look() -> bool:
        with urllib.request.urlopen(f"{llama[1]}/slots", timeout=5) as reply:
            return any(slot["is_processing"] for slot in json.load(reply))

    return look


def test_tokens_come_over_the_mesh_as_they_are_made_and_are_counted(cluster: Cluster) -> None:
    limit = ("--model", MODEL, "--max-tokens", "12", "--temperature", "0")
    done = cluster.cli(cluster.named("asker"), "ask", "--json", *limit, "the node and the mesh")
    assert done.exit_code == 0, done
    assert (done.result["name"], done.result["model"]) == ("thinker", MODEL)
    assert done.result["finish_reason"] == "length"
    assert done.result["usage"]["completion_tokens"] == 12
    assert done.result["usage"]["prompt_tokens"] > 5
    assert done.result["usage"]["is_estimate"] is False
    deltas = [event["text"] for event in done.of_kind("delta")]
    assert len(deltas) > 1
    assert "".join(deltas) == done.result["text"]


def test_stop_seed_and_temperature_are_honoured_on_the_other_side_of_the_mesh(
    cluster: Cluster,
) -> None:
    def say(*options: str) -> dict[str, Any]:
        line = ("ask", "--json", "--model", MODEL, "--max-tokens", "12", *options, "the mesh")
        done = cluster.cli(cluster.named("asker"), *line)
        assert done.exit_code == 0, done
        return done.result

    plain = say("--temperature", "0")
    assert plain["finish_reason"] == "length"
    stop = plain["text"][3:6]
    stopped = say("--temperature", "0", "--stop", stop)
    assert stopped["text"] == plain["text"][: plain["text"].index(stop)]
    assert stopped["finish_reason"] == "stop"
    assert 0 < stopped["usage"]["completion_tokens"] < 12
    drawn = [say("--temperature", "1.5", "--seed", seed)["text"] for seed in ("7", "7", "8")]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert drawn[0] != plain["text"]


def test_texts_become_vectors_by_a_file_that_the_other_node_serves(cluster: Cluster) -> None:
    asker = cluster.named("asker")

    def embed() -> Ended:
        texts = ("the node and the mesh", "a red bird", "the node and the mesh")
        return cluster.cli(asker, "embed", "--json", "--model", OWN, *texts)

    # It is loaded while the node goes on.
    wait_until(lambda: embed().exit_code == 0, f"{OWN} is loaded and known", START_S)
    told = embed().result
    one, other, again = told["embeddings"]
    assert (told["name"], told["model"], told["backend"]) == ("thinker", OWN, "llama-server")
    assert one == pytest.approx(again, abs=1e-4)
    assert one != pytest.approx(other, abs=1e-2)
    assert told["usage"]["prompt_tokens"] > 10
    assert told["usage"]["is_estimate"] is False


def test_a_fold_is_found_by_a_question_with_vectors_of_the_real_model(cluster: Cluster) -> None:
    asker = cluster.named("asker")
    filler = "the node and the mesh say nothing of it. " * 30
    for fact in ("a red bird sang at noon. ", "the valve 4711 is shut. ", ""):
        done = cluster.cli(asker, "fold", "-", "-b", "30", stdin=(filler + fact + filler).encode())
        assert done.exit_code == 0, done
    told = cluster.cli(asker, "unfold", "--json", "-q", "is valve 4711 shut?")
    assert told.exit_code == 0, told
    assert (told.result["model"], told.result["why_not"]) == (OWN, "")
    assert told.result["searched"] == 3
    assert told.result["usage"]["prompt_tokens"] > 1000
    nearest = told.result["folds"][0]
    assert "the valve 4711 is shut" in nearest["text"]
    whole = cluster.cli(asker, "unfold", nearest["handle"])
    assert whole.stdout == filler + "the valve 4711 is shut. " + filler


def test_interrupting_the_command_frees_the_slot(
    cluster: Cluster, is_busy: Callable[[], bool]
) -> None:
    asker = cluster.named("asker")
    asking = cluster.begin_cli(asker, "ask", "--json", *ENDLESS, "the node and the mesh")
    assert asking.stdout is not None
    assert json.loads(asking.stdout.readline())["kind"] == "delta"
    assert is_busy()
    asking.send_signal(signal.SIGINT)
    assert asking.wait(timeout=20) == 130
    wait_until(lambda: not is_busy(), "the slot is free", 10.0)
    done = cluster.cli(asker, "ask", "--json", "--model", MODEL, "--max-tokens", "3", "again")
    assert done.exit_code == 0, done


def test_a_node_that_is_killed_frees_the_slot_that_it_asked_for(
    cluster: Cluster, is_busy: Callable[[], bool]
) -> None:
    asker = cluster.named("asker")
    asking = cluster.begin_cli(asker, "ask", "--json", *ENDLESS, "the node and the mesh")
    assert asking.stdout is not None
    assert json.loads(asking.stdout.readline())["kind"] == "delta"
    assert is_busy()
    asker.kill()
    wait_until(lambda: not is_busy(), "the slot is free", 10.0)
    assert asking.wait(timeout=10) == 3
    cluster.start("asker", "--roles", "submit")
    cluster.wait_until_met(START_S)
