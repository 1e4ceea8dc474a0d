"""Running one program, and fetching what programs left, asked of whole nodes under virtual time."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.program_verbs import _Showing, _unfinished
from simulations.virtual_time import JumpingClock
from simulations.world import Part, open_world
from tests.node.services.prompts import ASKER, LEADER, THINKER, WORKER, block, blocks
from tests.node.test_verbs import Emitted, ask, refusal

ALL = (ASKER, LEADER, WORKER, THINKER)


@pytest.mark.trio
async def test_run_runs_a_program_on_the_best_peer(virtual_time: JumpingClock) -> None:
    async with open_world(ALL) as world:
        emit = Emitted()
        done = await ask(world, "run", emit, language="py", code="say hi\nkeep x 1")
        assert (done["exit_code"], done["status"], done["name"]) == (0, "ok", "node-2")
        assert emit.of("output") == [{"kind": "output", "stream": "stdout", "text": "hi\n"}]
        alone = await ask(world, "run", language="python", code="show x")
        assert (alone["exit_code"], alone["error"]) == (1, "NameError: x")


@pytest.mark.trio
async def test_run_goes_on_elsewhere_when_its_peer_dies(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, WORKER, WORKER]) as world, trio.open_nursery() as nursery:

        async def kill_the_first() -> None:
            await world.until(lambda: len(world.cells) == 1)
            await world.kill(1 if world.places[1].cells else 2)

        nursery.start_soon(kill_the_first)
        emit = Emitted()
        done = await ask(world, "run", emit, language="python", code="wait 5\nsay hi")
        assert (done["exit_code"], done["attempts"]) == (0, 2)
        assert "another peer begins anew" in str(emit.of("note")[0]["text"])


@pytest.mark.trio
async def test_a_program_is_given_arguments_files_and_something_to_read(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    (tmp_path / "in").write_text("read me")
    (tmp_path / "data").write_text("1,2")
    async with open_world(ALL) as world:
        emit = Emitted()
        await ask(
            world,
            "run",
            emit,
            language="python",
            code="arguments",
            name="sum.py",
            args=["--fast", "a b"],
            stdin=str(tmp_path / "in"),
            files=[{"name": "sub/data.csv", "path": str(tmp_path / "data")}],
        )
        (said,) = emit.of("output")
        assert said["text"] == "sum.py ['--fast', 'a b'] 'read me' {sub/data.csv: 1,2}\n"


@pytest.mark.trio
async def test_files_that_a_program_leaves_come_back_where_they_are_wanted(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world:
        code = "leave out/a.txt some words\nleave b.txt more"
        done = await ask(world, "run", language="python", code=code, wants_files=True)
        files = done["files"]
        assert isinstance(files, list)
        sizes = [(each["name"], each["bytes"]) for each in files]
        assert sizes == [("b.txt", 4), ("out/a.txt", 10)]
        assert Path(files[1]["path"]).read_text() == "some words"
        assert (await ask(world, "run", language="python", code=code))["files"] == []


@pytest.mark.trio
async def test_files_that_cells_leave_are_shown_with_their_task_and_fetched(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world:
        prompt = blocks("leave a.txt first\nleave b.txt kept", "leave a.txt second")
        task = world.submit(0, prompt, mode="blocks", task="t")
        await world.result(0, task)
        shown = await ask(world, "task", task="t")
        assert shown["files"] == [
            {"name": "a.txt", "bytes": 6, "cell": 1},
            {"name": "b.txt", "bytes": 4, "cell": 0},
        ]
        files = (await ask(world, "files", task="t"))["files"]
        assert isinstance(files, list)
        assert [Path(each["path"]).read_text() for each in files] == ["second", "kept"]


@pytest.mark.trio
async def test_a_file_whose_peer_is_gone_is_told_and_the_others_come(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world:
        task = world.submit(0, block("leave a.txt words"), mode="blocks", task="t")
        await world.result(0, task)
        await world.kill(2)
        ((row,),) = [(await ask(world, "files", task="t"))["files"]]
        assert "path" not in row
        assert "content" in str(row["error"])


@pytest.mark.trio
@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"language": "cobol"}, "unknown language cobol"),
        ({"code": "x" * 300_000}, "a program of 300000 bytes"),
        ({"args": ["x"] * 200}, "200 arguments; at most 128"),
        ({"args": ["x" * 3000]}, "an argument of 3000 bytes"),
        ({"files": [{"name": "../x", "path": "/etc/hostname"}]}, "not a path below"),
        ({"files": [{"name": "x", "path": "/no/such/file"}]}, "no such file"),
        ({"stdin": "/dev/zero"}, "not a plain file"),
    ],
)
async def test_what_cannot_be_run_is_refused_in_words(
    virtual_time: JumpingClock, request_: dict[str, object], words: str
) -> None:
    async with open_world([Part(), Part()]) as world:
        request = {"language": "python", "code": "say hi", **request_}
        assert words in str((await refusal(world, "run", **request))["message"]).lower()


# --- output on its way --------------------------------------------------------------------------


def texts(world_of: list[tuple[str, bytes]]) -> list[tuple[str, str]]:
    showing = _Showing()
    found = []
    for stream, data in world_of:
        showing.output("stderr" if stream == "stderr" else "stdout", data)
        while (event := showing.next()) is not None:
            found.append((str(event["stream"]), str(event["text"])))
    showing.end()
    while (event := showing.next()) is not None:
        found.append((str(event["stream"]), str(event["text"])))
    return found


def test_a_character_that_comes_in_two_pieces_is_one() -> None:
    first, second = "grü".encode()[:3], "grü".encode()[3:] + b"n"
    assert texts([("stdout", first), ("stderr", b"x"), ("stdout", second)]) == [
        ("stdout", "gr"),
        ("stderr", "x"),
        ("stdout", "ün"),
    ]
    assert texts([("stdout", first)]) == [("stdout", "gr"), ("stdout", "\N{REPLACEMENT CHARACTER}")]


def test_what_is_no_text_comes_as_bytes_too() -> None:
    showing = _Showing()
    showing.output("stdout", b"\x89PNG")
    event = showing.next()
    assert event is not None
    assert event["base64"] == "iVBORw=="


@given(st.text(max_size=40), st.lists(st.integers(0, 60), max_size=6))
def test_text_arrives_whole_however_it_is_cut(text: str, cuts: list[int]) -> None:
    data = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace").encode()
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [("stdout", data[a:b]) for a, b in itertools.pairwise(edges)]
    assert "".join(said for _, said in texts(pieces)) == data.decode()
    assert _unfinished(data) == b""
