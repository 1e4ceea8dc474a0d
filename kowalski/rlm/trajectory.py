"""A task's journal in the trajectory format of the reference implementation of RLMs.

Its viewer reads JSON lines: one `metadata`, then one `iteration` for each reply of the model, with
the messages that it was sent, its code, what the code printed, and what the code asked (PyPI
`rlms` 0.1.3, `RLMLogger`). What a child session did stands with the call that began it, as there
(`RLMChatCompletion.metadata`). The data of a task is not in its journal, nor is what a cell asked:
the one is named, of the other the digest is told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from kowalski.protocol.messages.journal import (
    CellFailed,
    CellFinished,
    CellStarted,
    ChildHappened,
    Closed,
    ModelReplied,
    Opened,
    Outcome,
    SessionEvent,
    SubCallAnswered,
    SubCallsAnswered,
)
from kowalski.protocol.messages.task import TaskSpec
from kowalski.rlm import session as machine
from kowalski.rlm.budget import child_event
from kowalski.rlm.session_state import Session, SessionLimits

Line = dict[str, Any]


@dataclass(slots=True)
class _Child:
    question: str
    events: list[SessionEvent] = field(default_factory=list)


@dataclass(slots=True)
class _Iteration:
    spec: TaskSpec
    prompt: list[Line]
    reply: ModelReplied
    codes: dict[int, str] = field(default_factory=dict)
    results: dict[int, Line] = field(default_factory=dict)
    asked: dict[int, list[Line]] = field(default_factory=dict)
    children: dict[tuple[int, int], _Child] = field(default_factory=dict)
    """Of sub-calls that are not answered yet, by cell and ordinal."""

    def line(self, number: int, final: str | None) -> Line:
        blocks = [{"code": code, "result": self._result(cell)} for cell, code in self.codes.items()]
        took = self.reply.duration_s
        took += sum(float(result["execution_time"]) for result in self.results.values())
        return {
            "type": "iteration",
            "iteration": number,
            "timestamp": None,
            "prompt": self.prompt,
            "response": self.reply.text,
            "code_blocks": blocks,
            "final_answer": final,
            "iteration_time": took,
        }

    def _result(self, cell: int) -> Line:
        empty = {"stdout": "", "stderr": "not run", "locals": {}, "execution_time": 0.0}
        calls = list(self.asked.get(cell, []))
        for (of, _), child in self.children.items():
            if of == cell:
                calls.append(_unanswered(self.spec, child))
        return {**self.results.get(cell, empty), "rlm_calls": calls, "final_answer": None}


def trajectory(spec: TaskSpec, events: Sequence[SessionEvent]) -> Iterator[Line]:
    """The lines, each to be written as JSON; see `as_text`."""
    session = machine.new_session(spec, limits=SessionLimits())
    opened = next((event for event in events if isinstance(event, Opened)), None)
    yield _metadata(spec, opened)
    number, current = 0, None
    for event in events:
        match event:
            case ModelReplied():
                if current is not None:
                    number += 1
                    yield current.line(number, None)
                current = _Iteration(spec, _messages(session), event)
            case Closed(answer=answer):
                if current is not None:
                    yield current.line(number + 1, answer)
                return
            case _:
                if current is not None:
                    _take(current, event)
        session = machine.replay(session, (event,))
    if current is not None:
        yield current.line(number + 1, None)


def as_text(line: Line) -> str:
    return json.dumps(line, ensure_ascii=False)


def _metadata(spec: TaskSpec, opened: Opened | None) -> Line:
    return {
        "type": "metadata",
        "timestamp": None,
        "root_model": (opened.model if opened else None) or spec.model,
        "max_depth": spec.budget.depth,
        "max_iterations": spec.max_iterations,
        "backend": "kowalski-node",
        "backend_kwargs": {},
        "environment_type": "kowalski-node",
        "environment_kwargs": {"inputs": [one.name for one in spec.inputs]},
        "other_backends": None,
    }


def _messages(session: Session) -> list[Line]:
    return [{"role": one.role, "content": one.content} for one in session.messages]


def _take(iteration: _Iteration, event: SessionEvent) -> None:
    match event:
        case CellStarted():
            iteration.codes[event.cell] = event.code
        case CellFinished():
            # The journal keeps both streams as they were shown, in one.
            iteration.results[event.cell] = {
                "stdout": event.output,
                "stderr": "" if event.status == "ok" else event.status,
                "locals": {one.name: one.digest for one in event.variables},
                "execution_time": event.duration_s,
            }
        case CellFailed():
            iteration.results[event.cell] = {
                "stdout": "",
                "stderr": f"{event.code}: {event.detail}",
                "locals": {},
                "execution_time": 0.0,
            }
        case SubCallsAnswered(answers=answers):
            for answered in answers:
                _take(iteration, answered)
        case ChildHappened():
            place = (event.cell, event.ordinal)
            child = iteration.children.setdefault(place, _Child(event.question or ""))
            inner = child_event(event)
            child.events += [] if inner is None else [inner]
        case SubCallAnswered():
            begun = iteration.children.pop((event.cell, event.ordinal), None)
            call = _call(event)
            if begun is not None:
                call["metadata"] = _within(iteration.spec, begun, event)
            iteration.asked.setdefault(event.cell, []).append(call)
        case _:
            pass


def _call(event: SubCallAnswered) -> Line:
    usage = event.usage
    return {
        "root_model": event.model,
        "prompt": f"sha256:{event.prompt}",
        "response": event.text if event.text is not None else "",
        "usage_summary": {
            "input_tokens": usage.prompt_tokens if usage else 0,
            "output_tokens": usage.completion_tokens if usage else 0,
        },
        "execution_time": event.duration_s,
        "error": event.error,
    }


def _unanswered(spec: TaskSpec, child: _Child) -> Line:
    opened = next((event for event in child.events if isinstance(event, Opened)), None)
    return {
        "root_model": opened.model if opened else None,
        "prompt": f"sha256:{child.question}",
        "response": "",
        "usage_summary": {"input_tokens": 0, "output_tokens": 0},
        "execution_time": 0.0,
        "metadata": _within(spec, child, None),
        "error": "not answered yet",
    }


def _within(parent: TaskSpec, child: _Child, answered: SubCallAnswered | None) -> Line:
    """What a child session did: its metadata and its iterations."""
    budget = parent.budget.model_copy(update={"depth": max(0, parent.budget.depth - 1)})
    prompt = f"sha256:{child.question}"
    spec = parent.model_copy(
        update={"prompt": prompt, "mode": "rlm", "inputs": (), "budget": budget}
    )
    events = list(child.events)
    if answered is not None:
        outcome: Outcome = "answered" if answered.error is None else "failed"
        events.append(Closed(outcome=outcome, answer=answered.text or ""))
    metadata, *iterations = trajectory(spec, events)
    return {"run_metadata": metadata, "iterations": iterations}
