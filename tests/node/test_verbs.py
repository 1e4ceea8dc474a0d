"""What the command line can ask of a node, asked of whole nodes under virtual time."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import trio

from kowalski.node import verbs
from kowalski.node.control import error_reply
from kowalski.protocol.errors import KowalskiError
from kowalski.protocol.ids import Address
from kowalski.protocol.join_line import parse as parse_join_line
from simulations.virtual_time import JumpingClock
from simulations.world import UNIX_EPOCH_S, Part, World, open_world
from tests.node.services.prompts import ASKER, LEADER, THINKER, WORKER, block

pytestmark = pytest.mark.trio

Reply = dict[str, object]


class Emitted:
    """What a verb has told on its way."""

    def __init__(self) -> None:
        self.events: list[Reply] = []

    async def __call__(self, event: Reply) -> None:
        await trio.lowlevel.checkpoint()
        self.events.append(event)

    def of(self, kind: str) -> list[Reply]:
        return [event for event in self.events if event["kind"] == kind]


async def ask(world: World, verb: str, emit: Emitted | None = None, **request: object) -> Reply:
    return await world.verbs(0)[verb](dict(request), emit or Emitted())


async def refusal(world: World, verb: str, **request: object) -> Reply:
    """What the asker is told."""
    with pytest.raises(KowalskiError) as refused:
        await ask(world, verb, **request)
    reply = error_reply(refused.value)["error"]
    assert isinstance(reply, dict)
    return reply


ALL = (ASKER, LEADER, WORKER, THINKER)

# --- looking ------------------------------------------------------------------------------------


async def test_status_tells_of_this_node(virtual_time: JumpingClock) -> None:
    async with open_world([Part(models=("m",)), Part()]) as world:
        world.submit(0, block("wait 50"), mode="blocks")
        status = await ask(world, "status")
        assert status["name"] == "node-0"
        assert status["peer"] == world.peer(0)
        assert status["connections"] == 1
        assert status["languages"] == {"python": "3.11", "bash": "5.2"}
        assert status["models"] == ["m"]
        assert status["backends"] == ["memory://"]
        assert status["tasks"] == 1
        assert status["p2p_port"] is None
        assert status["discovery"] == "off"


@pytest.mark.parametrize(
    ("addresses", "found"),
    [
        ((), None),
        (("/memory/12D3KooWMe",), None),
        (("/ip4/192.168.1.7/udp/4170/quic-v1",), None),
        (("/memory/x", "/ip4/192.168.1.7/tcp/4170", "/ip4/10.0.0.1/tcp/1"), ("192.168.1.7", 4170)),
        (("/ip6/fe80::1/tcp/4170",), ("fe80::1", 4170)),
    ],
)
async def test_where_a_node_listens_is_read_off_its_addresses(
    addresses: tuple[str, ...], found: tuple[str, int] | None
) -> None:
    assert verbs._listening(map(Address, addresses)) == found


async def test_doctor_tells_of_the_machine_the_sandbox_and_the_model_servers(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([Part(models=("m",)), Part()]) as world:
        reply = await ask(world, "doctor")
        checks = reply["checks"]
        assert isinstance(checks, list)
        found = {check["name"]: check for check in checks}
        assert {"platform", "data directory", "clock", "p2p port", "event loop"} <= set(found)
        assert found["sandbox"]["found"] == "none: a simulation"
        assert "memory://" in found["model server"]["found"]
        assert reply["verdict"] in {"ok", "warn", "fail"}


async def test_peers_are_listed_with_what_they_offer_and_why_they_are_not_here(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world:
        await world.kill(3)
        await trio.sleep(1)
        rows = (await ask(world, "peers"))["peers"]
        assert isinstance(rows, list)
        by_name = {row["name"]: row for row in rows}
        assert by_name["node-0"]["is_self"]
        assert by_name["node-1"]["roles"] == ["coordinate"]
        assert by_name["node-2"]["languages"] == {"bash": "5.2", "python": "3.11"}
        assert by_name["node-2"]["routable"]
        assert not by_name["node-3"]["routable"]
        assert by_name["node-3"]["why_not"]


# --- single pieces of work ----------------------------------------------------------------------


async def test_ask_streams_a_reply_and_counts_its_tokens(virtual_time: JumpingClock) -> None:
    async with open_world(ALL) as world:
        emit = Emitted()
        reply = await ask(world, "ask", emit, prompt="how many?", system="be brief")
        assert reply["text"] == "reply to: how many?"
        assert "".join(str(event["text"]) for event in emit.of("delta")) == reply["text"]
        assert reply["usage"] == {
            "prompt_tokens": 4,
            "completion_tokens": 4,
            "cached_tokens": 0,
            "thinking_tokens": 0,
            "is_estimate": False,
        }
        assert (reply["model"], reply["name"], reply["attempts"]) == ("m", "node-3", 1)


async def test_fold_fits_a_text_to_its_budget_on_some_peer(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    text = "\n".join(f"line {n}: the value of sensor {n} was {n * 7}" for n in range(2000))
    async with open_world([Part(), Part()]) as world:
        folded = await ask(world, "fold", text=text, budget_tokens=300)
        assert int(str(folded["tokens"])) <= 300
        assert int(str(folded["source_tokens"])) > 3000
        path = tmp_path / "long.txt"
        path.write_text(text * 5)
        by_hash = await ask(world, "fold", path=str(path), ratio=0.5)
        assert 0.2 < float(str(by_hash["ratio"])) <= 0.51
        assert len(str(by_hash["text"])) > 10_000


# --- the mesh -----------------------------------------------------------------------------------


async def test_invite_prints_a_line_for_this_mesh(virtual_time: JumpingClock) -> None:
    async with open_world(2) as world:
        invited = await ask(world, "invite", roles=["repl"], ttl_s=60.0, uses=2)
        line = parse_join_line(str(invited["line"]))
        assert line.mesh == invited["mesh"] == world[0].mesh.membership.mesh
        assert line.inviter == world.peer(0)
        assert invited["roles"] == ["repl"]
        brief = parse_join_line(str((await ask(world, "invite", ttl_s=0.2))["line"]))
        assert brief.not_after_unix_s > UNIX_EPOCH_S + trio.current_time(), "not over when given"
        plain = await ask(world, "invite")
        assert plain["roles"] == ["submit", "coordinate", "repl", "infer", "fold"]


async def test_only_the_founder_invites(virtual_time: JumpingClock) -> None:
    async with open_world(2) as world:
        with pytest.raises(KowalskiError, match="not_allowed"):
            await world.verbs(1)["invite"]({}, Emitted())


# --- bad input ----------------------------------------------------------------------------------

BIG = "x" * 300_000

BAD: list[tuple[str, Reply, str]] = [
    ("status", {"more": 1}, "usage"),
    ("peers", {"more": 1}, "usage"),
    ("tasks", {"limit": 0}, "usage"),
    ("tasks", {"limit": "5"}, "usage"),
    ("task", {}, "usage"),
    ("task", {"task": "no/such name"}, "usage"),
    ("task", {"task": "nobody"}, "unknown"),
    ("cancel", {"task": "nobody"}, "unknown"),
    ("submit", {}, "usage"),
    ("submit", {"prompt": " \n"}, "usage"),
    ("submit", {"prompt": "x", "mode": "dance"}, "usage"),
    ("submit", {"prompt": "x", "timeout_s": 0}, "usage"),
    ("submit", {"prompt": "x", "timeout_s": float("nan")}, "usage"),
    ("submit", {"prompt": "x", "max_iterations": 0}, "usage"),
    ("submit", {"prompt": "x", "task_id": "../x"}, "usage"),
    ("submit", {"prompt": "x", "model": ""}, "usage"),
    ("submit", {"prompt": BIG}, "usage"),
    ("submit", {"prompt": "x", "context": [{"name": "a", "path": "relative"}]}, "usage"),
    ("submit", {"prompt": "x", "context": [{"name": "a", "path": "/no/such/file"}]}, "usage"),
    ("submit", {"prompt": "x", "context": [{"name": "a", "path": "/"}]}, "usage"),
    ("submit", {"prompt": "x", "context": [{"name": "a", "path": "/dev/zero"}]}, "usage"),
    ("submit", {"prompt": "x", "context": [{"name": "a" * 200, "path": "/etc/hosts"}]}, "usage"),
    ("submit", {"prompt": "x", "context": [{"name": "a", "path": "/etc/hosts"}] * 2}, "usage"),
    ("submit", {"prompt": "x", "context": [{"name": "a", "path": "/etc/hosts"}] * 300}, "usage"),
    ("run", {"language": "cobol", "code": "x"}, "usage"),
    ("run", {"language": "py thon", "code": "x"}, "usage"),
    ("run", {"language": "python", "code": BIG}, "usage"),
    ("run", {"language": "rust", "code": "x"}, "no_peer"),
    ("run", {"language": "rust", "code": "x", "args": ["a"] * 999}, "usage"),
    ("run", {"language": "python", "code": "x", "timeout_s": -1}, "usage"),
    ("ask", {"prompt": ""}, "usage"),
    ("ask", {"prompt": "x" * 400_000}, "usage"),
    ("ask", {"prompt": "x", "model": "nobody-has-it"}, "no_peer"),
    ("ask", {"prompt": "x", "temperature": -1}, "usage"),
    ("fold", {}, "usage"),
    ("fold", {"text": "x", "path": "/etc/hosts"}, "usage"),
    ("fold", {"text": "x", "ratio": 0.5, "budget_tokens": 5}, "usage"),
    ("fold", {"path": "/no/such/file"}, "usage"),
    ("files", {"task": "nothing"}, "unknown"),
    ("fold", {"path": "/dev/zero"}, "usage"),
    ("fold", {"path": "/"}, "usage"),
    ("fold", {"text": "x", "question": BIG * 2}, "usage"),
    ("invite", {"roles": []}, "usage"),
    ("invite", {"roles": ["king"]}, "usage"),
    ("revoke", {"peer": ""}, "usage"),
    ("revoke", {"peer": "nobody"}, "usage"),
    ("invite", {"ttl_s": 0}, "usage"),
    ("invite", {"uses": 0}, "usage"),
]


async def test_each_bad_request_gets_its_typed_error_and_the_node_lives_on(
    virtual_time: JumpingClock,
) -> None:
    folder = dataclasses.replace(ASKER, roles=("submit", "fold"))
    async with open_world([folder, *ALL[1:]]) as world:
        wrong: list[str] = []
        for verb, request, code in BAD:
            try:
                reply = await refusal(world, verb, **request)
            except (Exception, BaseExceptionGroup) as other:  # noqa: BLE001 collected
                wrong.append(f"{verb} {str(request)[:80]}: {other!r}")
                continue
            if reply["code"] != code:
                wrong.append(f"{verb} {str(request)[:80]}: {reply}")
        assert not wrong, "\n".join(wrong)
        assert world[0].submitter.tasks == ()
        assert (await ask(world, "run", language="python", code="say on"))["exit_code"] == 0


SURROGATE: list[tuple[str, Reply]] = [
    ("submit", {"prompt": "\ud800", "mode": "direct"}),
    ("run", {"language": "python", "code": "say \ud800"}),
    ("run", {"language": "python", "code": "say x", "args": ["\ud800"]}),
    ("ask", {"prompt": "\ud800", "system": "\ud800"}),
    ("fold", {"text": "\ud800 and more", "budget_tokens": 5}),
]


@pytest.mark.parametrize(("verb", "request_"), SURROGATE)
async def test_half_a_character_is_replaced_not_stumbled_over(
    virtual_time: JumpingClock, verb: str, request_: Reply
) -> None:
    async with open_world([Part(models=("m",))]) as world:
        await ask(world, verb, **request_)


async def test_a_full_node_says_busy_with_the_exit_code_for_no_capacity(
    virtual_time: JumpingClock,
) -> None:
    single = dataclasses.replace(WORKER, slots=1)
    async with open_world([ASKER, LEADER, single]) as world:
        world.submit(0, block("wait 50"), mode="blocks", cell_timeout_s=90.0)
        await world.until(lambda: len(world.cells) == 1)
        reply = await refusal(world, "run", language="python", code="say x", timeout_s=5.0)
        assert (reply["code"], reply["exit_code"]) == ("busy", 5)
