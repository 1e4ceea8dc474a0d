"""What a person is shown of a task: its journal and progress as events of the command line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from kowalski.node.control_line import ExitCode
from kowalski.node.core.announced_tasks import Elsewhere
from kowalski.node.core.task_ledger import Task
from kowalski.node.services.submitter import Seen
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.task import Entry, Progress
from kowalski.rlm import budget
from kowalski.rlm.budget import NOTHING, Spent
from kowalski.rlm.journal import digest, event_of

Event = dict[str, object]
NameOf = Callable[[PeerId], str]

HEAD_CHARS = 72
DIVERGED = "run again, it left other variables behind than the first time"


@dataclass(slots=True)
class TaskView:
    """Follows one task; `events` turns what is seen into what is shown."""

    name_of: NameOf
    mode: str = ""
    term: int = 0
    turns: int = 0
    spent: Spent = NOTHING
    ran: dict[str, Event] = field(default_factory=dict)
    """By what it was: who did it last, and why that one."""
    files: dict[str, Event] = field(default_factory=dict)
    """What cells left, by name; the last of each."""
    _waiting: str = ""
    _places: dict[int, tuple[str, PeerId]] = field(default_factory=dict)

    def read(self, entries: Iterable[Entry]) -> None:
        """Take in a journal without showing it."""
        for entry in entries:
            for _ in self._entry(event_of(entry)):
                pass

    def events(self, seen: Seen) -> Iterator[Event]:
        task = seen.task
        if task.coordinator is not None and task.term > self.term:
            self.term = task.term
            yield {
                "kind": "coordinator",
                "peer": task.coordinator,
                "name": self.name_of(task.coordinator),
                "term": task.term,
                "why": task.why_waiting,
            }
        elif task.state == "waiting" and task.why_waiting != self._waiting:
            self._waiting = task.why_waiting
            yield {"kind": "note", "text": f"waiting: {task.why_waiting}"}
        if seen.entry is not None:
            yield from self._entry(event_of(seen.entry))
        if seen.progress is not None:
            yield from self._progress(seen.progress)

    def _entry(self, event: journal.SessionEvent) -> Iterator[Event]:  # noqa: C901, PLR0912 flat
        self.spent = budget.added(self.spent, event)
        match event:
            case journal.Opened():
                self.mode = event.mode
                model = f", model {event.model}" if event.model else ", no model"
                yield {"kind": "note", "text": f"mode {event.mode} ({event.why}){model}"}
            case journal.CellStarted():
                self._places[event.cell] = (event.language, event.peer)
                self._credit(f"cell {event.cell} ({event.language})", event.peer, event.why)
                yield self._cell(event.cell, "started", event.why)
            case journal.CellFinished():
                self._finish(event)
                yield {
                    **self._cell(event.cell, "done" if event.status == "ok" else event.status, ""),
                    "duration_s": event.duration_s,
                }
            case journal.CellFailed():
                yield self._cell(event.cell, f"failed: {event.code}", event.detail)
            case journal.ModelReplied():
                self._credit(f"call {event.call} ({event.model})", event.peer, "")
                yield self._call(event.model, event.peer)
                self.turns += 1
                yield {"kind": "turn", "n": self.turns}
            case journal.SubCallAnswered() as answered:
                yield from self._sub_calls((answered,))
            case journal.SubCallsAnswered(answers=answers):
                yield from self._sub_calls(answers)
            case journal.ChildHappened():
                yield from self._in_child(event)
            case journal.CellDiverged():
                names = f" ({', '.join(event.names)})" if event.names else ""
                text = f"cell {event.cell}: {event.detail or DIVERGED}{names}"
                yield {"kind": "note", "text": text}
            case journal.Folded():
                yield {
                    "kind": "fold",
                    "peer": event.peer,
                    "name": self.name_of(event.peer),
                    "source_tokens": event.source_tokens,
                    "tokens": event.tokens,
                }
            case journal.ModelFailed():
                yield {"kind": "note", "text": f"model call failed: {event.detail}"}
            case journal.BudgetSpent():
                yield {"kind": "note", "text": f"budget spent: {event.limit} {event.detail}"}
            case journal.CancelHeard():
                yield {"kind": "note", "text": f"cancelled: {event.reason}"}
            case journal.Closed():
                pass  # the end is told by the reply

    def _progress(self, progress: Progress) -> Iterator[Event]:
        match progress.kind:
            case "stdout" | "stderr":
                yield {
                    "kind": "output",
                    "stream": progress.kind,
                    "cell": progress.cell,
                    "text": progress.text,
                }
            case "delta":
                yield {"kind": "delta", "text": progress.text}
            case "note":
                yield {"kind": "note", "text": progress.text}
            case "moved":
                text = f"cell {progress.cell} {progress.language} moves: {progress.why}"
                yield {"kind": "note", "text": text}
            case "replayed" if progress.peer is not None:
                text = f"cell {progress.cell} runs again on {self.name_of(progress.peer)}"
                yield {"kind": "note", "text": f"{text}, to bring its variables back"}
            case "restart":
                yield {"kind": "note", "text": f"another peer begins anew: {progress.why}"}
            case _:
                pass  # a newer coordinator has more to tell than we can show

    def _cell(self, cell: int, status: str, why: str) -> Event:
        language, peer = self._places.get(cell, ("", PeerId("")))
        name = self.name_of(peer) if peer else ""
        return {
            "kind": "cell",
            "cell": cell,
            "language": language,
            "peer": peer,
            "name": name,
            "status": status,
            "why": why,
        }

    def _finish(self, event: journal.CellFinished) -> None:
        self._correct(event.cell, event.peer)
        for each in event.files:
            size = each.content.bytes_total
            self.files[each.name] = {"name": each.name, "bytes": size, "cell": event.cell}

    def _correct(self, cell: int, peer: PeerId) -> None:
        """One that began a cell may have been full; who ended it has run it."""
        language, began = self._places.get(cell, ("", peer))
        if began != peer:
            self._places[cell] = (language, peer)
            self._credit(f"cell {cell} ({language})", peer, "asked again")

    def _call(self, model: str, peer: PeerId) -> Event:
        return {"kind": "call", "model": model, "peer": peer, "name": self.name_of(peer)}

    def _sub_calls(self, answers: Iterable[journal.SubCallAnswered]) -> Iterator[Event]:
        """One event for all that one model at one peer answered; `count` where it is several."""
        by = Counter((one.model or "", one.peer) for one in answers if one.peer is not None)
        for (model, peer), count in by.items():
            yield self._call(model, peer) | ({"count": count} if count > 1 else {})

    def _in_child(self, event: journal.ChildHappened) -> Iterator[Event]:
        """Of child sessions only who answers is shown; `trace` tells the rest."""
        match budget.child_event(event):
            case journal.Opened():
                yield {"kind": "note", "text": f"cell {event.cell} begins a child session"}
            case journal.ModelReplied() as reply:
                yield self._call(reply.model, reply.peer)
            case journal.SubCallAnswered() as answered:
                yield from self._sub_calls((answered,))
            case journal.SubCallsAnswered(answers=answers):
                yield from self._sub_calls(answers)
            case journal.ChildHappened() as deeper:
                yield from self._in_child(deeper)
            case _:
                pass

    def _credit(self, what: str, peer: PeerId, why: str) -> None:
        self.ran[what] = {"what": what, "peer": peer, "name": self.name_of(peer), "why": why}

    def result(self, task: Task, answer: str) -> Event:
        """The task as it stands, with what ran where."""
        closed = task.answer
        coordinator = task.coordinator
        return {
            "task": task.id,
            "state": task.state,
            "answer": answer,
            "reason": closed.detail if closed else task.why_waiting,
            "score": closed.score if closed else None,
            "exit_code": exit_code(task),
            "mode": self.mode or task.spec.mode,
            "term": task.term,
            "coordinator": coordinator,
            "coordinator_name": self.name_of(coordinator) if coordinator else None,
            "stats": {
                "entries": task.entries,
                "cells": len(self._places),
                "turns": self.turns,
                "calls": self.spent.calls,
                "attempts": self.spent.attempts,
                "sub_calls": self.spent.sub_calls,
                "repeated": self.spent.repeated,
                "children": self.spent.children,
                "folds": self.spent.folds,
                "prompt_tokens": self.spent.prompt_tokens,
                "completion_tokens": self.spent.completion_tokens,
            },
            "ran": list(self.ran.values()),
            "files": [self.files[name] for name in sorted(self.files)],
        }


NOBODY_CAN = frozenset({"no_language", "no_model", "no_peer", "no_coordinator", "unsupported"})


def exit_code(task: Task) -> ExitCode:
    """What a command that waited for the task ends with."""
    if task.state == "answered":
        return ExitCode.OK
    code = task.answer.detail.partition(":")[0] if task.answer else ""
    return ExitCode.NO_CAPACITY if code in NOBODY_CAN else ExitCode.FAILED


def headline(task: Task, name_of: NameOf, now_unix_s: float, *, submitter: PeerId) -> Event:
    """One row of `tasks`."""
    return {
        "task": task.id,
        "submitter": submitter,
        "submitter_name": name_of(submitter),
        "state": task.state,
        "mode": task.spec.mode,
        "term": task.term,
        "coordinator": task.coordinator,
        "coordinator_name": name_of(task.coordinator) if task.coordinator else None,
        "entries": task.entries,
        "submitted_s_ago": max(0.0, now_unix_s - task.submitted_unix_s),
        "prompt_head": " ".join(task.spec.prompt.split())[:HEAD_CHARS],
    }


def headline_elsewhere(one: Elsewhere, name_of: NameOf) -> Event:
    """The same, of a task that was announced by somebody else."""
    told = one.headline
    return {
        "task": told.task,
        "submitter": one.submitter,
        "submitter_name": told.submitter_name or name_of(one.submitter),
        "state": told.state,
        "mode": told.mode,
        "term": told.term,
        "coordinator": told.coordinator,
        "coordinator_name": name_of(told.coordinator) if told.coordinator else None,
        "entries": told.entries,
        "submitted_s_ago": one.age_s,
        "prompt_head": told.head[:HEAD_CHARS],
    }


def journal_lines(task: TaskId, entries: Iterable[Entry], name_of: NameOf) -> list[Event]:
    """Each entry of a journal: who wrote it when in the order of things, and what it says."""
    rows: list[Event] = []
    for entry in entries:
        where = {"index": entry.index, "term": entry.term, "digest": digest(task, entry)}
        rows.append({**_said(event_of(entry), name_of), **where})
    return rows


def _said(event: journal.SessionEvent, name_of: NameOf) -> Event:
    """The fields of an event that say something; of a child session, what happened there."""
    hidden = {"event"} if isinstance(event, journal.ChildHappened) else set[str]()
    said: Event = event.model_dump(mode="json", exclude_defaults=True, exclude=hidden)
    if peer := said.get("peer"):
        said["peer_name"] = name_of(PeerId(str(peer)))
    if isinstance(event, journal.ChildHappened):
        inner = budget.child_event(event)
        said["child"] = {} if inner is None else _said(inner, name_of)
    return {**said, "kind": event.KIND}
