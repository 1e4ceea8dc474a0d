"""A task's events, as the node tells them, made into updates that a program can show."""

from __future__ import annotations

from dataclasses import dataclass, field

from kowalski.results import Json, ProgressUpdate


@dataclass(slots=True)
class TaskProgress:
    """Follows one task; `update` is called with each event in order."""

    task_id: str
    max_iterations: int
    began_at: float
    turns: int = 0
    calls: int = 0
    _devices: set[str] = field(default_factory=set)

    def update(self, event: Json, now: float) -> ProgressUpdate:
        kind = str(event.get("kind", "note"))
        if kind == "submitted":
            self.task_id = str(event["task"])
        if kind == "turn":
            self.turns = int(event["n"])
        if kind == "call":
            self.calls += int(event.get("count", 1))
        if kind in ("cell", "call", "fold", "coordinator") and event.get("name"):
            self._devices.add(str(event["name"]))
        return ProgressUpdate(
            task_id=self.task_id,
            kind=kind,
            text=_words(kind, event),
            iteration=self.turns,
            max_iterations=self.max_iterations,
            active_devices=len(self._devices),
            calls=self.calls,
            elapsed_s=now - self.began_at,
            details=event,
        )

    def ended(self, state: str, now: float) -> ProgressUpdate:
        return self.update({"kind": "ended", "text": state}, now)


_WORDS = {
    "submitted": "{task}",
    "coordinator": "{name} leads (term {term})",
    "cell": "cell {cell} ({language}) on {name}: {status}",
    "call": "{model} on {name}",
    "turn": "turn {n}",
    "fold": "folded {source_tokens} tokens to {tokens} on {name}",
}


def _words(kind: str, event: Json) -> str:
    try:
        return _WORDS.get(kind, "{text}").format_map(event)
    except KeyError:
        return ""  # a newer node tells it in other words
