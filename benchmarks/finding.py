"""How well a question finds its fold, and what that costs: `python -m benchmarks.finding`.

Sixty texts of Python's documentation and source, 8 KB each; in twelve of them a sentence is planted
that answers a question. Some questions use words of the sentence, some none of them: these can be
found by vectors alone, with `--embeddings URL` of a server with OpenAI's API (and `--model`).
Beside counting shared words, and PyPI's `rank_bm25` where it is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from benchmarks import machine
from benchmarks.figures import OURS, head, report
from kowalski.node.backends.http import open_http
from kowalski.node.backends.openai_http import OpenAiBackend
from kowalski.node.backends.openai_models import OpenAiServer, list_generic
from kowalski.node.backends.probing import candidate
from kowalski.node.backends.seam import EmbeddingRequest
from kowalski.rlm import retrieval
from kowalski.rlm.tokens import estimate_tokens
from tests.kowalski.rlm import planted

TEXTS: Final = 60
TEXT_CHARS: Final = 8000
IDLE_TIMEOUT_S: Final = 60.0

OTHER_WORDS: Final = (
    "What flavouring did the old family dish want?",
    "At which time of year may nobody enter from the side of the sunrise?",
    "What was swapped for a two-wheeled vehicle?",
    "In which building do the singers practise on wet days?",
    "Who hides money paid by tenants below a staircase?",
    "Who came into the world at sea, close to Iceland?",
    "When does the bread shop take a day off?",
    "How cold should the shots against disease be stored?",
    "Which player beat everybody at the board game?",
    "In which year was there no more water to be drawn?",
    "How much is a ride on public transport down to the port?",
    "Which bird took a pet out of the water?",
)
"""As `planted.QUESTIONS`, in words that the facts have not."""

Rank = Callable[[str, Sequence[str]], Sequence[float]]
"""A score for each text."""


@dataclass(frozen=True, slots=True)
class Case:
    texts: tuple[str, ...]
    answers: tuple[int, ...]
    """In which text the answer to each question stands."""


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.finding", description=__doc__)
    arguments.add_argument("--embeddings", metavar="URL", help="a server with OpenAI's API")
    arguments.add_argument("--model", default="all-minilm-l6-v2")
    arguments.add_argument("--seeds", type=int, default=3)
    options = arguments.parse_args()
    print(machine.describe())
    print()
    head()
    cases = [_case(seed) for seed in range(options.seeds)]
    _tell("words", cases, _words)
    _tell("words", cases, _shared, peer="counting shared words")
    if importlib.util.find_spec("rank_bm25"):
        _tell("words", cases, _rank_bm25, peer="rank_bm25")
    if options.embeddings:
        trio.run(_by_model, options.embeddings, options.model, cases)


def _case(seed: int) -> Case:
    draw = random.Random(seed)
    whole = planted.prose() + planted.source_and_logs()
    texts = [whole[at : at + TEXT_CHARS] for at in range(0, TEXTS * TEXT_CHARS, TEXT_CHARS)]
    answers = draw.sample(range(TEXTS), len(planted.QUESTIONS))
    for number, (_, answer) in zip(answers, planted.QUESTIONS, strict=True):
        fact = next(fact for fact, _ in planted.FACTS if answer in fact)
        lines = texts[number].split("\n")
        lines.insert(draw.randrange(len(lines)), fact)
        texts[number] = "\n".join(lines)
    return Case(tuple(texts), tuple(answers))


def _tell(name: str, cases: Sequence[Case], rank: Rank, peer: str = OURS) -> None:
    for kind, questions in (
        ("its words", [question for question, _ in planted.QUESTIONS]),
        ("other words", OTHER_WORDS),
    ):
        first = three = 0
        began = time.process_time()
        for case in cases:
            for question, answer in zip(questions, case.answers, strict=True):
                scores = rank(question, case.texts)
                order = sorted(range(TEXTS), key=lambda number: (-scores[number], number))
                first += order[0] == answer
                three += answer in order[:3] and scores[answer] > 0
        asked = len(cases) * len(questions)
        cpu_ms = 1000 * (time.process_time() - began) / asked
        by = f", by {name}" if peer == OURS else ""
        what = f"{asked} questions in {kind}{by}: found"
        report(f"{what} first (%)", [100 * first / asked], peer=peer, cpu_ms=cpu_ms)
        report(f"{what} among three (%)", [100 * three / asked], peer=peer)


# --- ways ---------------------------------------------------------------------------------------


def _shared(question: str, texts: Sequence[str]) -> list[float]:
    asked = set(re.findall(r"\w+", question.lower()))
    return [float(len(asked & set(re.findall(r"\w+", text.lower())))) for text in texts]


def _words(question: str, texts: Sequence[str]) -> list[float]:
    return _ours(question, texts, None)


def _rank_bm25(question: str, texts: Sequence[str]) -> list[float]:
    library = importlib.import_module("rank_bm25")
    index = library.BM25Okapi([re.findall(r"\w+", text.lower()) for text in texts])
    return [float(one) for one in index.get_scores(re.findall(r"\w+", question.lower()))]


def _ours(
    question: str, texts: Sequence[str], near: Callable[[str, Sequence[str]], list[float]] | None
) -> list[float]:
    pieces = [retrieval.pieces_of(text) for text in texts]
    joined = [piece for each in pieces for piece in each]
    found = retrieval.by_words(question, joined)
    if near is not None:
        found = retrieval.joined(found, near(question, joined))
    scores = [0.0] * len(texts)
    for one in retrieval.nearest(pieces, found, count=len(texts)):
        scores[one.number] = one.score
    return scores


# --- vectors ------------------------------------------------------------------------------------


async def _by_model(url: str, model: str, cases: Sequence[Case]) -> None:
    """Every piece and question is embedded once, before the ranking is timed."""
    place = candidate(url)
    server = OpenAiServer("openai", place.url, place.api_url, place.api_key)
    vectors: dict[str, bytes] = {}
    async with open_http() as http:
        backend = OpenAiBackend(
            server, http=http, estimate_tokens=estimate_tokens, list_by=list_generic
        )
        texts = {piece for case in cases for text in case.texts for piece in _pieces(text)}
        asked = [*(question for question, _ in planted.QUESTIONS), *OTHER_WORDS]
        wanted = [*sorted(texts), *asked]
        began = time.perf_counter()
        for start in range(0, len(wanted), 64):
            lot = tuple(wanted[start : start + 64])
            found = await backend.embed(EmbeddingRequest(model, lot), idle_timeout_s=IDLE_TIMEOUT_S)
            vectors |= dict(zip(lot, found.vectors, strict=True))
        print(f"{len(wanted)} vectors in {time.perf_counter() - began:.1f} s by {model}")

    def near(question: str, pieces: Sequence[str]) -> list[float]:
        told = retrieval.by_vectors(vectors[question], [vectors[piece] for piece in pieces])
        return [one or 0.0 for one in told]

    def vectors_alone(question: str, texts: Sequence[str]) -> list[float]:
        pieces = [_pieces(text) for text in texts]
        scores = iter(near(question, [piece for each in pieces for piece in each]))
        return [max(next(scores) for _ in each) for each in pieces]

    _tell("vectors", cases, vectors_alone, peer="vectors alone")
    _tell("words and vectors", cases, partial(_ours, near=near))


def _pieces(text: str) -> tuple[str, ...]:
    return retrieval.pieces_of(text)


if __name__ == "__main__":
    main()
