"""How many planted facts survive a fold, and what it costs: `python -m benchmarks.folding`.

`weak model` stands for the checked fold of a model's summary. It is no model: it tells only how
each part begins, which is worse than any. Our folder beside cutting off the tail, random sentences
and, where they are installed, sumy and summa. Every row is measured in the same run; times are the
least of all runs, with the most.
"""

from __future__ import annotations

import argparse
import bisect
import importlib
import importlib.util
import multiprocessing
import os
import platform
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final

from kowalski.rlm import model_folding
from kowalski.rlm.facts import facts_of
from kowalski.rlm.folding import fold
from kowalski.rlm.segmentation import segments
from kowalski.rlm.tokens import estimate_tokens
from tests.kowalski.rlm import planted

TEXTS: Final[Mapping[str, Callable[[], str]]] = {
    "prose": planted.prose,
    "source": planted.source_and_logs,
}
PERCENTS: Final = (25, 10, 5)
PEER_LIMIT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Measured:
    facts: int
    stated: int
    """Numbers, identifiers and names of the text that are still there."""
    ratio: float
    wall_s: float
    cpu_s: float


def ours(text: str, budget_tokens: int) -> str:
    return fold(text, budget_tokens=budget_tokens).text


def weak_model(text: str, budget_tokens: int) -> str:
    """What is left of a model that tells only how each part begins, once it is checked."""
    parts = model_folding.plan(text, budget_tokens=budget_tokens)
    told = [model_folding.founded(part, part.text[:2000]) for part in parts]
    return model_folding.joined(text, told, budget_tokens=budget_tokens).text


def head(text: str, budget_tokens: int) -> str:
    def tokens(chars: int) -> int:
        return estimate_tokens(text[:chars])

    return text[: bisect.bisect_right(range(len(text)), budget_tokens, key=tokens) - 1]


def random_sentences(text: str, budget_tokens: int) -> str:
    sentences = [text[s.start : s.end] for s in segments(text, fence_chars_max=0)]
    order = random.Random(1).sample(range(len(sentences)), len(sentences))
    kept: list[int] = []
    for at in order:
        budget_tokens -= estimate_tokens(sentences[at])
        if budget_tokens < 0:
            break
        kept.append(at)
    return "".join(sentences[at] for at in sorted(kept))


class _Tokenizer:
    """What sumy asks of a language; its own needs data that is downloaded."""

    def to_sentences(self, text: str) -> tuple[str, ...]:
        found = segments(text, fence_chars_max=0)
        return tuple(" ".join(text[s.start : s.end].split()) for s in found)

    def to_words(self, sentence: str) -> tuple[str, ...]:
        return tuple(sentence.split())


def sumy(algorithm: str) -> Callable[[str, int], str]:
    def shorten(text: str, budget_tokens: int) -> str:
        plaintext = importlib.import_module("sumy.parsers.plaintext")
        summarizers = importlib.import_module(f"sumy.summarizers.{algorithm}")
        name = {"sum_basic": "SumBasic", "text_rank": "TextRank", "luhn": "Luhn"}[algorithm]
        document = plaintext.PlaintextParser.from_string(text, _Tokenizer()).document
        # It counts sentences, not tokens: the share of them is the best that can be asked for.
        count = round(len(document.sentences) * budget_tokens / estimate_tokens(text))
        summarize = getattr(summarizers, f"{name}Summarizer")()
        return "\n".join(str(sentence) for sentence in summarize(document, count))

    return shorten


def summa(text: str, budget_tokens: int) -> str:
    summarizer = importlib.import_module("summa.summarizer")
    return str(summarizer.summarize(text, ratio=budget_tokens / estimate_tokens(text)))


OURS_AND_SIMPLE: Final[Mapping[str, Callable[[str, int], str]]] = {
    "ours": ours,
    "weak model": weak_model,
    "head": head,
    "random": random_sentences,
}
PEERS: Final[Mapping[str, tuple[str, Callable[[str, int], str]]]] = {
    "sumy SumBasic": ("sumy", sumy("sum_basic")),
    "sumy Luhn": ("sumy", sumy("luhn")),
    "sumy TextRank": ("sumy", sumy("text_rank")),
    "summa TextRank": ("summa", summa),
}


def measure(shorten: Callable[[str, int], str], text: str, percent: int) -> Measured:
    source_tokens = estimate_tokens(text)
    wall, cpu = time.perf_counter(), time.process_time()
    short = shorten(text, source_tokens * percent // 100)
    cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - wall
    ratio = estimate_tokens(short) / source_tokens
    stated = len(facts_of(text).all & facts_of(short).all)
    return Measured(planted.survivors(short), stated, ratio, wall_s, cpu_s)


def _measure_peer(answer: Connection, name: str, text: str, percent: int) -> None:
    answer.send(measure(PEERS[name][1], text, percent))


def measure_peer(name: str, text: str, percent: int) -> Measured | None:
    """None if it took too long or failed; in a process of its own, because it may do either."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_measure_peer, args=(sender, name, text, percent))
    child.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(PEER_LIMIT_S) else None
    except EOFError:
        return None
    finally:
        child.kill()
        child.join()


def line(name: str, text: str, percent: int, runs: list[Measured]) -> str:
    walls = sorted(run.wall_s * 1000 for run in runs)
    cpus = sorted(run.cpu_s * 1000 for run in runs)
    fewest, most = min(run.facts for run in runs), max(run.facts for run in runs)
    facts = str(most) if fewest == most else f"{fewest}-{most}"
    return (
        f"{name:15} {text:7} {percent:3} %  {facts:>6} of 20  {runs[0].stated:5}"
        f"  {runs[0].ratio:6.3f}"
        f"  {walls[0]:7.0f} ({walls[-1]:.0f}) ms wall  {cpus[0]:7.0f} ({cpus[-1]:.0f}) ms CPU"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="each with facts in other places")
    runs = max(1, parser.parse_args().runs)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {load:.1f}")
    print(f"Python {platform.python_version()}, {runs} runs")
    print("facts planted, facts stated, ratio, least (most) time\n")
    peers = [name for name, (module, _) in PEERS.items() if importlib.util.find_spec(module)]
    for text_name, load_text in TEXTS.items():
        texts = [planted.planted(load_text(), seed=seed) for seed in range(1, runs + 1)]
        chars, tokens = len(texts[0]), estimate_tokens(texts[0])
        print(f"{text_name}: {chars} characters, about {tokens} tokens")
        for percent in PERCENTS:
            for name, shorten in OURS_AND_SIMPLE.items():
                done = [measure(shorten, text, percent) for text in texts]
                print(line(name, text_name, percent, done), flush=True)
            for name in peers:
                one = measure_peer(name, texts[0], percent)
                missing = f"{name:15} {text_name:7} {percent:3} %  failed, or over {PEER_LIMIT_S} s"
                print(line(name, text_name, percent, [one]) if one else missing, flush=True)
    if not peers:
        print("\nsumy and summa are not installed and so not compared.")


if __name__ == "__main__":
    main()
