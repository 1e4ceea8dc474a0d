"""The messages that a model is sent: appended to only, until they are too many and are folded.

Appending only lets a model server keep what it has read of the conversation.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal

from kowalski.protocol.messages.inference import ChatMessage
from kowalski.protocol.messages.journal import Folded, ModelReplied
from kowalski.rlm import budget, wording
from kowalski.rlm.session_state import Asking, Folding, Purpose, Session, message_tokens

MESSAGES_KEPT: Final = 2
"""By a fold: the newest reply and its outputs stay as they are, and so does the preamble."""


def said(session: Session, role: Literal["system", "user", "assistant"], content: str) -> Session:
    message = ChatMessage(role=role, content=content)
    return replace(
        session,
        messages=(*session.messages, message),
        history=(*session.history, message),
        tokens=session.tokens + message_tokens(message),
    )


def counted(session: Session, event: ModelReplied) -> Session:
    """Learn from what the server told of the window that it was asked with."""
    # With several attempts it is the sum of theirs.
    if event.attempts > 1 or event.usage.is_estimate:
        return session
    learnt = session.scale.heard(session.tokens, event.usage.prompt_tokens)
    return session if learnt is session.scale else replace(session, learnt=learnt)


def asked(session: Session, purpose: Purpose) -> Session:
    last = len(session.messages) - MESSAGES_KEPT
    tokens = session.scale.at_most(session.tokens)
    if tokens > session.limits.window_tokens and last > session.preamble:
        return replace(session, stage=Folding(purpose, wording.to_fold(session, last)))
    return replace(session, stage=Asking(purpose))


def folded(session: Session, purpose: Purpose, event: Folded) -> Session:
    last = len(session.messages) - MESSAGES_KEPT
    if last <= session.preamble:
        return session
    session = replace(
        session,
        summary=event.text,
        folds=(*session.folds, event.original),
        spent=budget.added(session.spent, event),
    )
    begin = ChatMessage(role="user", content=wording.folded_question(session))
    messages = (*session.messages[: session.preamble - 1], begin, *session.messages[last:])
    tokens = sum(map(message_tokens, messages))
    return replace(session, messages=messages, tokens=tokens, stage=Asking(purpose))
