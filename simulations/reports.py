"""What came of one story: how it ended, what was counted, and what is kept to look into."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from simulations.plan import Plan
from simulations.timeline import Timeline
from simulations.witness import Said, Violation, in_words


@dataclass(slots=True)
class Report:
    """How a story went. `violation` is the first promise that was broken."""

    plan: Plan
    trace_hash: str = ""
    violation: Violation | None = None
    fired: dict[str, int] = field(default_factory=dict)
    evaluated: Counter[str] = field(default_factory=Counter)
    messages: Counter[str] = field(default_factory=Counter)
    stream_bytes: int = 0
    gossip_bytes: int = 0
    lasted_s: float = 0.0
    """Virtual time."""
    ends: Counter[str] = field(default_factory=Counter)
    """Tasks by how they ended; `lost` with their submitter."""
    task_s: list[float] = field(default_factory=list)
    """From the submit to the end of each task."""
    terms: int = 0
    entries: int = 0
    cells_begun: int = 0
    cells_visible: int = 0
    calls: int = 0
    last: tuple[Said | str, ...] = ()
    trace: list[str] | None = None
    timeline: Timeline | None = None
    recorders: dict[str, list[str]] = field(default_factory=dict)
    """The last steps of every machine, of nodes as they were when a promise was broken."""

    @property
    def events(self) -> list[str]:
        """What happened last, in words."""
        return [in_words(one) for one in self.last]
