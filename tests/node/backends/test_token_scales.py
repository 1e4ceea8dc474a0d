from __future__ import annotations

import pytest

from kowalski.node.backends.seam import Completed, CompletionEvent, CompletionRequest
from kowalski.node.backends.token_scales import MODELS_MAX, Counted, TokenScales

TEXT = "word " * 200


def words(text: str) -> int:
    return len(text.split())


def test_an_estimate_is_the_general_one_until_the_server_has_counted() -> None:
    scales = TokenScales(words)
    assert scales.estimate("m", TEXT) == 200
    scales.hear("m", TEXT, 500)
    assert scales.estimate("m", TEXT) == 500
    assert scales.estimate("another", TEXT) == 200


def test_more_counts_at_once_and_less_by_and_by() -> None:
    scales = TokenScales(words)
    scales.hear("m", TEXT, 400)
    scales.hear("m", TEXT, 200)
    assert scales.estimate("m", TEXT) == 340
    scales.hear("m", TEXT, 600)
    assert scales.estimate("m", TEXT) == 600


@pytest.mark.parametrize("counted", [0, 7, 99, 1601])
def test_a_count_that_cannot_be_of_the_whole_prompt_teaches_nothing(counted: int) -> None:
    scales = TokenScales(words)
    scales.hear("m", TEXT, counted)
    scales.hear("m", "too short a text", 9)
    assert scales.estimate("m", TEXT) == 200


def test_a_server_of_endless_names_is_not_learnt_by_heart() -> None:
    scales = TokenScales(words)
    for n in range(MODELS_MAX + 5):
        scales.hear(f"m{n}", TEXT, 400)
    assert scales.estimate("m0", TEXT) == 400
    assert scales.estimate(f"m{MODELS_MAX + 4}", TEXT) == 200


class Events:
    def __init__(self, *events: CompletionEvent) -> None:
        self.left = [*events]

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> CompletionEvent:
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop()


@pytest.mark.trio
@pytest.mark.parametrize(
    ("estimated", "images", "learnt"),
    [("no", (), 500), ("yes", (), 200), ("no", (b"png",), 200)],
)
async def test_what_a_stream_ends_with_is_learnt_from(
    estimated: str, images: tuple[bytes, ...], learnt: int
) -> None:
    end = Completed("stop", 500, 3, usage_is_estimate=estimated == "yes")
    scales = TokenScales(words)
    request = CompletionRequest("m", prompt=TEXT, images=images)
    assert [event async for event in Counted(Events(end), request, scales)] == [end]
    assert scales.estimate("m", TEXT) == learnt
