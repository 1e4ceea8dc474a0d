"""What the command line can ask of a node, asked of whole nodes under virtual time."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import trio

from kowalski.node import verbs
from kowalski.node.control import error_reply
from kowalski.node.repl.scripted_sessions import ScriptedCell, ScriptedState
from kowalski.protocol.errors import KowalskiError
from kowalski.protocol.ids import Address
from kowalski.protocol.join_line import parse as parse_join_line
from simulations.toy_cells import toy_script
from simulations.virtual_time import JumpingClock
from simulations.world import UNIX_EPOCH_S, Part, World, open_world
from tests.node.services.prompts import ASKER, LEADER, THINKER, WORKER, block, blocks

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


async def test_tasks_are_listed_and_one_is_shown_with_what_ran_where(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world:
        for name in ("a", "b", "c"):
            task = world.submit(0, block("say hi"), mode="blocks", task=name)
            await world.result(0, task)
        rows = (await ask(world, "tasks", limit=2))["tasks"]
        assert isinstance(rows, list)
        assert [row["task"] for row in rows] == ["c", "b"]
        shown = await ask(world, "task", task="a")
        assert (shown["state"], shown["exit_code"]) == ("answered", 0)
        ran = shown["ran"]
        assert isinstance(ran, list)
        assert [(row["what"], row["name"]) for row in ran] == [
            ("cell 0 (python)", "node-2"),
            ("call 0 (m)", "node-3"),
        ]


# --- tasks --------------------------------------------------------------------------------------


async def test_submit_shows_the_task_as_it_goes_and_returns_its_result(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world:
        emit = Emitted()
        prompt = blocks("say one", "wait 5\nsay two")
        result = await ask(world, "submit", emit, prompt=prompt, mode="blocks", task_id="t")
        assert (result["state"], result["exit_code"], result["term"]) == ("answered", 0, 1)
        assert "two" in str(result["answer"])
        assert emit.events[0] == {"kind": "submitted", "task": "t", "mode": "blocks"}
        assert [event["name"] for event in emit.of("coordinator")] == ["node-1"]
        assert [event["status"] for event in emit.of("cell")] == [
            "started",
            "done",
            "started",
            "done",
        ]
        assert "".join(str(event["text"]) for event in emit.of("output")) == "one\ntwo\n"
        stats = result["stats"]
        assert isinstance(stats, dict)
        assert (stats["cells"], stats["calls"]) == (2, 1)


async def test_submit_without_following_returns_at_once_and_a_later_one_follows(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world:
        request = {"prompt": block("wait 20\nsay hi"), "mode": "blocks", "task_id": "t"}
        before = trio.current_time()
        detached = await ask(world, "submit", follow=False, **request)
        assert detached == {"task": "t", "state": "running"}
        assert trio.current_time() == before
        result = await ask(world, "submit", **request)
        assert result["state"] == "answered"
        assert len(world.cells) == 1
        again = await ask(world, "submit", **request)
        assert again == result, "who asks after the end is told the same"


async def test_hanging_up_leaves_the_task_going(virtual_time: JumpingClock) -> None:
    async with open_world(ALL) as world:
        with trio.move_on_after(1):
            await ask(world, "submit", prompt=block("wait 5"), mode="blocks", task_id="t")
        assert (await ask(world, "task", task="t"))["state"] == "running"
        await trio.sleep(10)
        assert (await ask(world, "task", task="t"))["state"] == "answered"


async def test_an_asker_that_reads_slower_than_things_happen_is_told_the_end(
    virtual_time: JumpingClock,
) -> None:
    calls = 1100

    class Slow(Emitted):
        """Reads nothing until all calls are made."""

        async def __call__(self, event: Reply) -> None:
            if not self.events:
                await world.until(lambda: len(world.calls) == calls)
                await trio.sleep(1.0)
            await super().__call__(event)

    fast = dataclasses.replace(THINKER, model_slots=64)
    async with open_world([ASKER, LEADER, WORKER, fast]) as world:
        emit = Slow()
        result = await ask(
            world,
            "submit",
            emit,
            prompt=block(f"ask-many {calls} q\nwait 25\nsay done"),
            mode="blocks",
            model="none",
        )
        stats = result["stats"]
        assert isinstance(stats, dict)
        assert (result["state"], stats["calls"]) == ("answered", calls)
        assert len(emit.of("call")) < calls, "some were too many"


async def test_a_task_that_nobody_can_do_ends_with_the_code_for_that(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER]) as world:
        result = await ask(world, "submit", prompt="what is it?", mode="direct")
        assert (result["state"], result["exit_code"]) == ("failed", 5)
        assert str(result["reason"]).startswith("no_model: ")


async def test_context_files_reach_the_cells(virtual_time: JumpingClock, tmp_path: Path) -> None:
    names: list[tuple[str, ...]] = []

    def looks(code: str, state: ScriptedState) -> ScriptedCell:
        names.append(tuple(sorted(state.inputs)))
        return toy_script(code, state)

    path = tmp_path / "notes.txt"
    path.write_bytes(b"n" * 700_000)
    worker = dataclasses.replace(WORKER, script=looks)
    async with open_world([ASKER, LEADER, worker]) as world:
        result = await ask(
            world,
            "submit",
            prompt=block("say hi"),
            mode="blocks",
            context=[{"name": "notes.txt", "path": str(path)}],
        )
        assert result["state"] == "answered"
        assert names == [("notes.txt",)]


async def test_cancel_returns_what_there_is_of_an_answer(virtual_time: JumpingClock) -> None:
    async with open_world(ALL) as world:
        prompt = blocks("say first", "wait 500")
        world.submit(0, prompt, mode="blocks", task="t")
        await world.until(lambda: len(world.cells) == 2)
        cancelled = await ask(world, "cancel", task="t")
        assert cancelled["state"] == "cancelled"
        assert "first" in str(cancelled["answer"])
        assert (await ask(world, "cancel", task="t")) == cancelled


async def test_a_task_id_stands_for_one_task(virtual_time: JumpingClock) -> None:
    async with open_world(ALL) as world:
        request: Reply = {"prompt": block("say hi"), "mode": "blocks", "task_id": "t"}
        await ask(world, "submit", **request)
        for other in ({"prompt": "something else"}, {"max_iterations": 9}, {"timeout_s": 5.0}):
            reply = await refusal(world, "submit", **{**request, **other})
            assert reply["code"] == "conflict"
        assert len(world[0].submitter.tasks) == 1
        first = await ask(world, "submit", follow=False, prompt="x", mode="direct")
        second = await ask(world, "submit", follow=False, prompt="x", mode="direct")
        assert first["task"] != second["task"], "who names none gets one each time"


async def test_an_answer_that_goes_by_its_hash_is_shown_whole_or_says_what_is_missing(
    virtual_time: JumpingClock,
) -> None:
    letter = "\N{CJK UNIFIED IDEOGRAPH-6F22}"
    big = dataclasses.replace(THINKER, tells=lambda _asked: block(f"answer-big 90000 {letter}"))
    async with open_world([ASKER, LEADER, WORKER, big]) as world:
        task = world.submit(0, "write much", mode="rlm", task="t")
        await world.result(0, task)
        await world.kill(1)
        lost = await ask(world, "task", task="t")
        assert str(lost["answer"]).startswith(letter * 10)
        assert "[the rest cannot be had: " in str(lost["answer"])
        await world.start(1)
        await world.meet()
        assert (await ask(world, "task", task="t"))["answer"] == letter * 90_000
        await world.kill(1)
        assert (await ask(world, "task", task="t"))["answer"] == letter * 90_000


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
