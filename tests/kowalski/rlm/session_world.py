"""A world around a session: answers its effects by a script, and keeps the journal.

Everything that it answers is a function of what it is asked, so that two runs of one task can be
compared whatever happened in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from kowalski.protocol.ids import PeerId, content_hash
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.inference import Usage
from kowalski.protocol.messages.journal import (
    CellFailed,
    CellFinished,
    CellStarted,
    Closed,
    Folded,
    ModelFailed,
    ModelReplied,
    Opened,
    SessionEvent,
)
from kowalski.protocol.messages.repl import AnswerVariable, CellStatus, Input
from kowalski.protocol.messages.task import Mode, TaskSpec
from kowalski.rlm import session
from kowalski.rlm.session import AskModel, Finish, Fold, Note, RunCell
from kowalski.rlm.session_state import message_tokens

PEER = PeerId("12D3KooWabcdefgh")
LIMITS = session.SessionLimits()

Reply = str | ModelFailed
Run = Callable[[RunCell], CellFinished | CellFailed]


def spec(
    prompt: str,
    mode: Mode = "auto",
    *,
    turns: int = 5,
    inputs: Iterable[str] = (),
    **more: object,
) -> TaskSpec:
    refs = tuple(
        Input(
            name=name,
            content=ContentRef(hash=content_hash(name.encode()), bytes_total=10_000_000),
        )
        for name in inputs
    )
    asked = {"prompt": prompt, "mode": mode, "max_iterations": turns, "timeout_s": 60.0}
    return TaskSpec.model_validate({**asked, "inputs": refs, **more})


def finished(
    cell: int,
    output: str = "",
    *,
    status: CellStatus = "ok",
    answer: str | None = None,
    is_ready: bool = False,
    is_session_alive: bool = True,
) -> CellFinished:
    variable = None if answer is None else AnswerVariable(content=answer, is_ready=is_ready)
    return CellFinished(
        cell=cell,
        peer=PEER,
        status=status,
        output=output,
        answer=variable,
        is_session_alive=is_session_alive,
    )


def replied(call: int, text: str, prompt_tokens: int = 10) -> ModelReplied:
    usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=2)
    return ModelReplied(call=call, text=text, model="m", peer=PEER, usage=usage)


def echo(cell: RunCell) -> CellFinished:
    """Prints its code; the code `answer X` sets the answer, `ready X` finishes with it."""
    word, _, rest = cell.code.strip().partition(" ")
    answer = rest if word in {"answer", "ready"} else None
    output = f"ran {cell.code.strip()} after {cell.after}"
    return finished(cell.cell, output, answer=answer, is_ready=word == "ready")


@dataclass
class World:
    """`replies` are said in order, the last one again and again; `run` runs a cell.

    A reply is chosen by the number of its question, so that it does not matter who asks. Where
    each answer is judged, every other question is the judge's, and `judgements` are its replies.
    Of each prompt the model counts `factor` times what we estimate; None: it says 10 of any.
    """

    replies: tuple[Reply, ...] = ()
    run: Run = echo
    judgements: tuple[Reply, ...] = ("1",)
    factor: float | None = None
    journal: list[SessionEvent] = field(default_factory=list)
    asked: list[AskModel] = field(default_factory=list)
    cells: list[RunCell] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def answer(self, effect: session.Effect) -> tuple[SessionEvent, ...]:
        match effect:
            case AskModel(call=call):
                self.asked.append(effect)
                reply = self._reply(effect)
                if isinstance(reply, ModelFailed):
                    return (reply.model_copy(update={"call": call}),)
                return (replied(call, reply, self.counted(effect)),)
            case RunCell(cell=cell, language=language, code=code):
                self.cells.append(effect)
                started = CellStarted(cell=cell, language=language, code=code, peer=PEER)
                return (started, self.run(effect))
            case Fold(text=text, budget_tokens=budget):
                return (folded(text, budget),)
            case Finish(outcome=outcome, answer=answer, detail=detail, score=score):
                return (Closed(outcome=outcome, answer=answer, detail=detail, score=score),)
            case Note(text=text):
                self.notes.append(text)
                return ()

    def counted(self, asked: AskModel) -> int:
        """What the model's server says of a prompt."""
        estimated = sum(map(message_tokens, asked.messages))
        return 10 if self.factor is None else round(self.factor * estimated)

    def _reply(self, effect: AskModel) -> Reply:
        replies, number = self.replies, effect.call
        if effect.purpose == "evaluate":
            replies, number = self.judgements, effect.call // 2
        return replies[min(number, len(replies) - 1)]

    def live(
        self,
        state: session.Session,
        effects: Iterable[session.Effect],
        *,
        take: Callable[[int], int] = lambda _waiting: 0,
    ) -> session.Session:
        """Do `effects` and what follows to the end; `take` chooses which waiting thing is next."""
        waiting = [list(self.answer(effect)) for effect in effects]
        while waiting := [events for events in waiting if events]:
            event = waiting[take(len(waiting))].pop(0)
            self.journal.append(event)
            state, effects = session.step(state, event)
            session.check(state)
            if any(isinstance(effect, Finish) for effect in effects):
                waiting = []  # whatever still runs is stopped
            waiting += [list(self.answer(effect)) for effect in effects]
        return state

    def go(
        self,
        task: TaskSpec,
        *,
        models: tuple[str, ...] = ("m",),
        languages: Iterable[str] = ("python", "js", "bash"),
        limits: session.SessionLimits = LIMITS,
        inputs: tuple[session.InputText, ...] = (),
        take: Callable[[int], int] = lambda _waiting: 0,
    ) -> Finish:
        opened = session.open_session(
            task, languages=frozenset(languages), models=models, limits=limits, inputs=inputs
        )
        assert isinstance(opened, Opened), opened
        fresh = session.new_session(task, limits=limits, inputs=inputs)
        self.journal.append(opened)
        state, effects = session.step(fresh, opened)
        session.check(state)
        self.live(state, effects, take=take)
        closed = self.journal[-1]
        assert isinstance(closed, Closed)
        return Finish(closed.outcome, closed.answer, closed.detail, closed.score)


def folded(text: str, budget_tokens: int) -> Folded:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Folded(
        text=f"summary {digest[:8]}",
        original=ContentRef(hash=content_hash(text.encode()), bytes_total=len(text.encode())),
        source_tokens=len(text) // 4,
        tokens=min(budget_tokens, 5),
        peer=PEER,
    )
