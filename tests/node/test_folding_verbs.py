"""fold and unfold, asked of whole nodes under virtual time; folding and the mesh are real."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from kowalski.node.backends.seam import BackendError, CompletionRequest
from kowalski.node.folding_verbs import Reply
from kowalski.protocol.limits import TEXT_BYTES_MAX
from kowalski.rlm import folding, model_folding
from simulations.virtual_time import JumpingClock
from simulations.world import Part, World, open_world
from tests.node.services.prompts import ASKER, THINKER
from tests.node.test_verbs import Emitted, ask, refusal

pytestmark = pytest.mark.trio

FOLDER = Part(languages={}, roles=("submit", "fold"))
TEXT = "\n".join(f"line {n}: the value of sensor_{n} was {n * 7 + 100}" for n in range(2000))


def gist(request: CompletionRequest) -> str:
    """Tells the first two lines of what it reads, and one that nobody wrote."""
    lines = re.findall(r"^line .*$", request.messages[-1].content, re.MULTILINE)
    return "\n".join([*lines[:2], "sensor_x9 was never seen."])


def silent(_request: CompletionRequest) -> str:
    return ""


async def test_the_original_of_a_fold_is_had_again_byte_for_byte(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([FOLDER]) as world:
        for text in (TEXT, "caf\N{LATIN SMALL LETTER E WITH ACUTE}\r\n\ttab " * 300):
            folded = await ask(world, "fold", text=text, budget_tokens=300)
            unfolded = await ask(world, "unfold", handle=folded["handle"])
            assert unfolded["text"] == text
            assert unfolded["bytes"] == folded["bytes"] == len(text.encode())


async def test_a_long_original_is_told_by_where_it_lies(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    path = tmp_path / "long.txt"
    path.write_text(TEXT * 12)
    async with open_world([FOLDER]) as world:
        folded = await ask(world, "fold", path=str(path), budget_tokens=300)
        unfolded = await ask(world, "unfold", handle=folded["handle"])
        assert int(str(folded["bytes"])) > TEXT_BYTES_MAX
        files = unfolded["files"]
        assert isinstance(files, list)
        assert Path(files[0]["path"]).read_bytes() == path.read_bytes()


async def test_an_original_is_found_on_whichever_peer_holds_it(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, FOLDER, FOLDER]) as world:
        kept = await world[2].store.put(TEXT.encode())
        assert (await ask(world, "unfold", handle=kept.hash))["text"] == TEXT


async def test_an_original_that_nobody_holds_is_unknown_and_no_wait(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, FOLDER]) as world:
        assert (await refusal(world, "unfold", handle="0" * 64))["code"] == "unknown"
        for wrong in ("", "0" * 63, "../../etc/passwd", "Z" * 64):
            assert (await refusal(world, "unfold", handle=wrong))["code"] == "usage"
        no = await refusal(world, "unfold", handle="0" * 64, budget_tokens=5)
        assert no["code"] == "usage"


async def test_of_an_original_what_may_answer_a_question(virtual_time: JumpingClock) -> None:
    async with open_world([FOLDER]) as world:
        folded = await ask(world, "fold", text=TEXT, budget_tokens=100)
        told = await ask(
            world,
            "unfold",
            handle=folded["handle"],
            question="What was the value of sensor_1234?",
            budget_tokens=200,
        )
        assert "sensor_1234 was 8738" in str(told["text"])
        assert int(str(told["tokens"])) <= 200


async def test_a_model_folds_and_what_it_made_up_or_lost_is_put_right(
    virtual_time: JumpingClock,
) -> None:
    model = dataclasses.replace(THINKER, tells=gist)
    async with open_world([ASKER, model, model]) as world:
        emit = Emitted()
        folded = await ask(world, "fold", emit, text=TEXT, budget_tokens=4000, model="m")
        text = str(folded["text"])
        parts = int(str(folded["parts"]))
        assert folded["algorithm"] == model_folding.ALGORITHM
        assert parts == folded["calls"] == len(world.calls) > 5
        assert "sensor_x9" not in text
        assert folded["made_up"] == parts
        assert int(str(folded["facts_kept"])) > int(str(folded["facts_told"])) > parts
        assert int(str(folded["tokens"])) <= 4000
        assert [event["parts_done"] for event in emit.of("progress")] == list(range(1, parts + 1))
        assert (await ask(world, "unfold", handle=folded["handle"]))["text"] == TEXT


async def test_a_model_that_nobody_has_or_that_says_nothing_spoils_no_fold(
    virtual_time: JumpingClock,
) -> None:
    plain = folding.fold(TEXT, budget_tokens=800).text.strip()
    async with open_world([ASKER, dataclasses.replace(THINKER, tells=silent)]) as world:
        none = await ask(world, "fold", text=TEXT, budget_tokens=800, model="nobody-has-it")
        assert (none["text"], none["algorithm"]) == (plain, folding.ALGORITHM)
        assert "no_peer" in str(none["failure"])
        empty = await ask(world, "fold", text=TEXT, budget_tokens=800, model="m")
        assert (empty["text"], empty["failure"]) == (plain, "")


async def test_status_tells_what_folding_has_saved(virtual_time: JumpingClock) -> None:
    async with open_world([FOLDER, dataclasses.replace(THINKER, tells=gist)]) as world:
        first = await ask(world, "fold", text=TEXT, budget_tokens=500)
        second = await ask(world, "fold", text=TEXT, budget_tokens=500, model="m")
        await ask(world, "unfold", handle=first["handle"])
        counts = (await ask(world, "status"))["folding"]
        assert counts == {
            "folds": 2,
            "by_model": 1,
            "source_tokens": int(str(first["source_tokens"])) * 2,
            "tokens": int(str(first["tokens"])) + int(str(second["tokens"])),
            "facts": second["facts"],
            "facts_kept": second["facts_kept"],
            "unfolds": 1,
        }


async def test_a_budget_is_in_the_tokens_of_a_model_where_a_peer_counts_them(
    virtual_time: JumpingClock,
) -> None:
    """The scripted model counts words, of which a line has seven to our twenty tokens."""
    async with open_world([FOLDER, THINKER]) as world:
        folded = await ask(world, "fold", text=TEXT, budget_tokens=1000, fits="m")
        words = len(str(folded["text"]).split())
        assert folded["tokens"] == words
        assert 900 <= words <= 1000
        assert (folded["is_estimate"], folded["counted_by"]) == (False, "node-1")
        told = await ask(world, "tokens", model="m", text=str(folded["text"]))
        assert (told["tokens"], told["is_estimate"], told["name"]) == (words, False, "node-1")
        ours = await ask(world, "fold", text=TEXT, budget_tokens=1000, fits="nobody-has-it")
        assert (ours["is_estimate"], ours["counted_by"]) == (True, None)
        assert 900 <= int(str(ours["tokens"])) <= 1000


async def test_a_model_that_folds_is_asked_again_only_while_it_is_too_long(
    virtual_time: JumpingClock,
) -> None:
    model = dataclasses.replace(THINKER, tells=gist)
    async with open_world([ASKER, model]) as world:
        folded = await ask(world, "fold", text=TEXT, budget_tokens=2000, model="m", fits="m")
        assert int(str(folded["tokens"])) <= 2000
        assert len(world.calls) <= 2 * int(str(folded["calls"]))


async def test_tokens_of_a_file_are_counted_and_two_sources_are_a_mistake(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("the valve is shut")
    async with open_world([ASKER, THINKER]) as world:
        assert (await ask(world, "tokens", model="m", path=str(path)))["tokens"] == 4
        for wrong in ({"model": "m"}, {"model": "m", "path": str(path), "text": "x"}):
            assert (await refusal(world, "tokens", **wrong))["code"] == "usage"


WEATHER = "The wind blows over the hill and nobody says a word about it. " * 40
DESK = "The key of the desk is in the blue box, said Ada. "
PUMP = "The valve of pump 4711 was replaced on Monday. "


async def fold_three(world: World) -> list[str]:
    """Handles of a text about nothing, one about a desk, one about a pump."""
    texts = (WEATHER, WEATHER + DESK + WEATHER, PUMP + WEATHER)
    folded = [await ask(world, "fold", text=text, budget_tokens=50) for text in texts]
    return [str(one["handle"]) for one in folded]


@pytest.mark.parametrize("models", [(), ("tiny-embed",)])
async def test_the_folds_nearest_to_a_question_are_found_with_and_without_vectors(
    virtual_time: JumpingClock, models: tuple[str, ...]
) -> None:
    thinker = dataclasses.replace(THINKER, models=("m", *models))
    async with open_world([FOLDER, thinker]) as world:
        _, desk, pump = await fold_three(world)
        told = await ask(world, "folds", question="Where is Ada's key to the desk?", count=1)
        (nearest,) = rows(told)
        assert (nearest["handle"], nearest["score"]) == (desk, 1.0)
        assert "in the blue box" in str(nearest["text"])
        assert str(nearest["name"]).startswith("The wind blows")
        assert (told["model"], told["why_not"]) == (models[0] if models else None, "")
        assert told["searched"] == 3
        again = await ask(world, "folds", question="Where is Ada's key to the desk?", count=1)
        assert rows(again) == rows(told)
        (nearest,) = rows(await ask(world, "folds", question="pump 4711", count=1))
        assert nearest["handle"] == pump


async def test_texts_are_embedded_once_and_a_question_each_time(
    virtual_time: JumpingClock,
) -> None:
    thinker = dataclasses.replace(THINKER, models=("tiny-embed",))
    async with open_world([FOLDER, thinker]) as world:
        await fold_three(world)
        folds = world.verbs(0)["folds"]  # Of one node; `ask` makes its verbs anew.
        used = [
            (await folds({"question": question}, Emitted()))["usage"]
            for question in ("Where is it?", "Who said that?")
        ]
    tokens = [dict(one)["prompt_tokens"] for one in used]  # type: ignore[call-overload]
    assert tokens[0] > 1000
    assert tokens[1] == 3


async def test_where_vectors_fail_words_find_it_and_why_is_said(
    virtual_time: JumpingClock,
) -> None:
    thinker = dataclasses.replace(THINKER, models=("tiny-embed",))
    async with open_world([FOLDER, thinker]) as world:
        _, desk, _ = await fold_three(world)
        world.places[1].backend.failure = BackendError("stalled", "no progress for 9 s")
        told = await ask(world, "folds", question="the key of the desk")
        assert rows(told)[0]["handle"] == desk
        assert told["model"] is None
        assert "tiny-embed: " in str(told["why_not"])


async def test_nothing_folded_nothing_found_and_no_question_is_a_mistake(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([FOLDER]) as world:
        assert rows(await ask(world, "folds", question="anything")) == []
        for wrong in ({"question": ""}, {}, {"question": "q", "count": 0}):
            assert (await refusal(world, "folds", **wrong))["code"] == "usage"


def rows(told: Reply) -> list[dict[str, object]]:
    found = told["folds"]
    assert isinstance(found, list)
    return found
