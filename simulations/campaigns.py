"""Thousands of seeds over all scenarios, in pieces: what was told is written down at once.

One line of JSON for each story, so that a campaign that was stopped goes on where it was, with the
same code: a story that another commit told is told again. The scenarios take turns by their
shares, so that the part that was told stands for the whole.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from simulations import promises, scenarios
from simulations.scenarios import Scenario
from simulations.seeds import Outcome, Tally
from simulations.witness import Violation

Story = tuple[str, int]
"""The name of a scenario, and the seed."""


def schedule(count: int, first_seed: int) -> list[Story]:
    """So many seeds of all scenarios, in the order in which to tell them."""
    spread = [
        ((number + 0.5) / part, name, first_seed + number)
        for name, part in scenarios.split(count).items()
        for number in range(part)
    ]
    return [(name, seed) for _, name, seed in sorted(spread)]


@dataclass(slots=True)
class Campaign:
    """What a file knows of one commit's stories."""

    path: Path
    commit: str
    told: dict[Story, Outcome] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, commit: str) -> Campaign:
        """As far as it goes; a line that was cut off in the middle was not told."""
        campaign = cls(path, commit)
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if text and not text.endswith("\n"):
            path.write_text(text + "\n", encoding="utf-8")
        for line in text.splitlines():
            try:
                read: dict[str, Any] = json.loads(line)
                if read["commit"] == commit:
                    campaign.told[read["scenario"], read["seed"]] = _outcome(read)
            except (ValueError, KeyError, TypeError):
                continue
        return campaign

    def left(self, stories: Iterable[Story]) -> list[Story]:
        return [one for one in stories if one not in self.told]

    def add(self, scenario: str, outcome: Outcome) -> None:
        """Write it down."""
        self.told[scenario, outcome.seed] = outcome
        # Not all of `asdict`, which makes nonsense of counters.
        written = {name: getattr(outcome, name) for name in NAMES}
        written |= {"scenario": scenario, "commit": self.commit}
        written["violation"] = asdict(outcome.violation) if outcome.violation else None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(written) + "\n")

    def by_scenario(self) -> Iterator[tuple[str, Tally]]:
        for name in sorted({name for name, _ in self.told}):
            total = Tally()
            for (scenario, _), outcome in sorted(self.told.items()):
                if scenario == name:
                    total.add(outcome)
            yield name, total

    def unproven(self, known: Mapping[str, Scenario]) -> list[str]:
        """What no story that was told has shown, in words."""
        whole = Tally()
        for outcome in self.told.values():
            whole.add(outcome)
        told = {name for name, _ in self.told}
        scenarios = [one for name, one in known.items() if name in told]
        return promises.unproven(scenarios, whole.fired, whole.evaluated)


NAMES = tuple(one.name for one in fields(Outcome))


def _outcome(read: dict[str, Any]) -> Outcome:
    violation = read["violation"]
    return Outcome(
        seed=read["seed"],
        trace_hash=read["trace_hash"],
        violation=Violation(**violation) if violation else None,
        crash=read["crash"],
        fired=read["fired"],
        evaluated=Counter(read["evaluated"]),
        messages=Counter(read["messages"]),
        ends=Counter(read["ends"]),
        task_s=tuple(read["task_s"]),
        cells_begun=read["cells_begun"],
        cells_visible=read["cells_visible"],
        virtual_s=read["virtual_s"],
        cpu_s=read["cpu_s"],
    )


def table(campaign: Campaign) -> str:
    """All of it, as a table of Markdown."""
    rows = [
        "| scenario | seeds | broken | tasks | faults | hours of the mesh | CPU s a seed |",
        "|---|---|---|---|---|---|---|",
    ]
    whole = Tally()
    for outcome in campaign.told.values():
        whole.add(outcome)
    rows += [_row(name, total) for name, total in campaign.by_scenario()]
    return "\n".join([*rows, _row("**all**", whole)])


def _row(name: str, total: Tally) -> str:
    return (
        f"| {name} | {total.outcomes} | {len(total.broken)} | {total.ends.total()} "
        f"| {sum(total.fired.values())} | {total.virtual_s / 3600:.1f} "
        f"| {total.cpu_s / max(total.outcomes, 1):.2f} |"
    )
