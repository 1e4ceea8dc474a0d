"""What Prometheus reads."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kowalski.node.core.http_counts import MODELS_MAX
from kowalski.node.http.completions import Completed
from simulations.virtual_time import JumpingClock
from simulations.world import open_world
from tests.node.http.rooms import ask, open_room
from tests.node.services.prompts import ASKER, LEADER, THINKER, WORKER, block

pytestmark = pytest.mark.trio

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


async def test_the_mesh_the_tasks_and_the_calls_are_counted(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world([ASKER, WORKER, THINKER]) as world:
        room = open_room(world, tmp_path)
        world.submit(0, block("say 7"), mode="blocks")
        await ask(room, "POST", "/v1/chat/completions", CHAT)
        metrics = room.metrics.expose().decode()
        assert 'kowalski_peers{state="member"} 3.0' in metrics
        assert 'name="node-2"' in metrics
        assert 'kowalski_model_calls_total{model="m",outcome="ok",peer="node-2"} 1.0' in metrics
        assert 'kowalski_model_tokens_total{direction="completion",model="m"} 3.0' in metrics
        assert 'kowalski_tasks{state="waiting"}' in metrics
        assert metrics.count("kowalski_peer_swap_used_ratio{") == 3
        assert "kowalski_peer_battery_charge_ratio{" not in metrics, "none has a battery"


async def test_placements_breakers_gossip_and_journals_are_counted(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world([ASKER, WORKER, THINKER, LEADER]) as world:
        room = open_room(world, tmp_path)
        await world.result(0, world.submit(0, block("say 7"), mode="blocks"))
        await ask(room, "POST", "/v1/chat/completions", CHAT)
        none = {**CHAT, "model": "nobody-has-it"}
        assert (await ask(room, "POST", "/v1/chat/completions", none)).status == 404
        dispatch, poor = world[0].work.placing.dispatch, (world.peer(1), "code")
        for _ in range(3):
            dispatch.breakers.fail(poor, dispatch.breakers.send(poor, 0.0), 0.0)
        await world.until(lambda: world[0].mesh.telemetry.received > 0)
        told = values(room.metrics.expose().decode())
    assert told['kowalski_placements_total{kind="inference",outcome="chosen",way="only"}'] >= 1
    assert told['kowalski_placements_total{kind="inference",outcome="nobody",way="nobody"}'] >= 1
    assert told['kowalski_breakers{kind="code",state="open"}'] == 1
    assert told['kowalski_breakers{kind="inference",state="closed"}'] == 1
    assert told['kowalski_breakers_opened_total{kind="code"}'] == 1
    assert told['kowalski_gossip_messages_total{direction="sent"}'] >= 1
    assert told['kowalski_gossip_messages_total{direction="received"}'] >= 1
    assert "kowalski_gossip_lost_total" in told
    assert told['kowalski_journal_entries_total{journal="own"}'] >= 3
    assert told['kowalski_journal_bytes_total{journal="own"}'] >= 100
    assert told['kowalski_journal_entries_total{journal="detached"}'] == 0
    (open_at,) = [
        name
        for name in told
        if name.startswith("kowalski_peer_breaker_open{") and 'kind="code"' in name
    ]
    assert told[open_at] == 1
    assert 'name="node-1"' in open_at


def values(exposed: str) -> dict[str, float]:
    rows = (line.rpartition(" ") for line in exposed.splitlines() if line[0] != "#")
    return {name: float(value) for name, _, value in rows}


async def test_two_nodes_in_one_process_count_apart(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world([ASKER, THINKER]) as world:
        first, second = open_room(world, tmp_path, 0), open_room(world, tmp_path, 1)
        await ask(first, "POST", "/v1/chat/completions", CHAT)
        assert b"kowalski_model_calls_total{" in first.metrics.expose()
        assert b"kowalski_model_calls_total{" not in second.metrics.expose()


async def test_names_that_clients_make_up_are_kept_to_a_bound(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world([ASKER, THINKER]) as world:
        room = open_room(world, tmp_path)
        await ask(room, "POST", "/v1/chat/completions", CHAT)
        for number in range(MODELS_MAX + 10):
            room.metrics.call_ended(Completed(f"made-up-{number}", "", "no_peer", None, 0.1))
            room.metrics.request_answered("/healthz", f"ODD{number}", 405, 0.1)
        room.metrics.call_ended(Completed("m", "node-1", "ok", None, 0.1))
        metrics = room.metrics.expose().decode()
        assert metrics.count("kowalski_model_calls_total{") == MODELS_MAX + 1
        assert 'model_calls_total{model="other",outcome="no_peer",peer=""} 11.0' in metrics
        assert 'model_calls_total{model="m",outcome="ok",peer="node-1"} 2.0' in metrics
        odd = 'http_requests_total{method="other",route="/healthz",status="405"}'
        assert f"{odd} {MODELS_MAX + 10:.1f}" in metrics


async def test_prometheus_finds_nothing_wrong(virtual_time: JumpingClock, tmp_path: Path) -> None:
    beside = Path(sys.executable).with_name("promtool")
    promtool = str(beside) if beside.exists() else shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here (Debian's prometheus)")
    async with open_world([ASKER, THINKER]) as world:
        room = open_room(world, tmp_path)
        await ask(room, "POST", "/v1/chat/completions", CHAT)
        exposed = room.metrics.expose()
    command = [promtool, "check", "metrics"]
    checked = subprocess.run(command, input=exposed, capture_output=True, check=False)  # noqa: ASYNC221
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
