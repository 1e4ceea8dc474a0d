"""Is a seed the same story everywhere? Traces of some seeds, by other interpreters, side by side.

    python -m simulations.same_story SCENARIO:SEED...        # one line of each: its hash

Hashes of strings differ from process to process, and the order of sets with them; versions of
Python differ in more. Whoever is given a file of a story, or a seed, is to see what was seen.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from simulations import plan, scenarios, seeds

ROOT = Path(__file__).parent.parent
SCENARIOS = ("home", "wifi", "deposed", "trouble", "detached")
"""Small ones, which have every kind of fault between them."""
HASH_SEEDS = (0, 1, 4_242_424_242)
"""Of an interpreter, as PYTHONHASHSEED says it."""


@dataclass(frozen=True, slots=True)
class Teller:
    """One interpreter in one mood."""

    python: Path
    hash_seed: int

    def __str__(self) -> str:
        return f"{self.python}, PYTHONHASHSEED={self.hash_seed}"

    def hashes(self, stories: Sequence[str]) -> dict[str, str]:
        """The trace of each story.

        Raises:
            subprocess.CalledProcessError: it cannot tell them; its words are in `stderr`.
        """
        told = subprocess.run(
            [self.python, "-m", "simulations.same_story", *stories],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": str(self.hash_seed)},
            capture_output=True,
            text=True,
            check=True,
        )
        return dict(line.split() for line in told.stdout.splitlines())


def stories(count: int) -> list[str]:
    """So many, by turns of all scenarios that are told here."""
    return [f"{SCENARIOS[n % len(SCENARIOS)]}:{n // len(SCENARIOS) + 1}" for n in range(count)]


def tellers(pythons: Iterable[Path]) -> list[Teller]:
    """All moods of the first interpreter, and one of each other."""
    first, *others = pythons
    return [
        *(Teller(first, mood) for mood in HASH_SEEDS),
        *(Teller(other, HASH_SEEDS[-1]) for other in others),
    ]


def differences(told: dict[str, dict[str, str]]) -> list[str]:
    """Stories that somebody tells otherwise than the first does, in words; by teller."""
    (first, expected), *others = told.items()
    return [
        f"{story}: {got.get(story)} by {who}, {wanted} by {first}"
        for who, got in others
        for story, wanted in expected.items()
        if got.get(story) != wanted
    ]


def main(wanted: Sequence[str]) -> None:
    for story in wanted:
        name, _, seed = story.rpartition(":")
        report = seeds.tell(plan.draw(scenarios.load(name), int(seed)))
        print(story, report.trace_hash)


if __name__ == "__main__":
    main(sys.argv[1:])
