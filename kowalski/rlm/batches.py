"""Questions that go out together: drafts of one answer, and the parts of a long text.

Their replies keep the order, and one that fails never fails another: what is there is used.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from kowalski.protocol.messages.inference import ChatMessage
from kowalski.protocol.messages.journal import ModelFailed, ModelReplied
from kowalski.rlm import budget, wording
from kowalski.rlm.session_state import Asking, Gathering, Session


def first_asked(session: Session, purpose: Literal["direct", "refine"]) -> Session:
    """Ask what the window says, for the first time: at once, or in several drafts."""
    drafts = session.spec.asking.drafts
    left = budget.calls_left(session.spec, session.spent)
    if left is not None:  # one makes an answer of the drafts
        drafts = min(drafts, left - 1)
    if drafts < 2:
        return replace(session, stage=Asking(purpose))
    return _gather(session, "draft", (session.messages,) * drafts)


def parts_asked(session: Session, text: str) -> Session | None:
    """Have notes taken of each part of a text that is too long for one question.

    None: the budget has no calls for that.
    """
    most = session.limits.parts_max
    left = budget.calls_left(session.spec, session.spent)
    if left is not None:  # one makes an answer of the notes
        most = min(most, left - 1)
    if most < 2:
        return None
    pieces = wording.parts(text, session.limits, most)
    questions = tuple(
        (
            ChatMessage(
                role="user",
                content=session.render("part", text=piece, part=number, parts=len(pieces)),
            ),
        )
        for number, piece in enumerate(pieces, 1)
    )
    return _gather(session, "part", questions)


def _gather(
    session: Session,
    purpose: Literal["draft", "part"],
    questions: tuple[tuple[ChatMessage, ...], ...],
) -> Session:
    gathering = Gathering(purpose, session.calls, questions, (None,) * len(questions))
    return replace(session, calls=session.calls + len(questions), stage=gathering)


def gathered(gathering: Gathering, event: ModelReplied | ModelFailed) -> Gathering | None:
    """With one more slot filled; None if the event answers none that is open."""
    slot = event.call - gathering.first
    if not 0 <= slot < len(gathering.replies) or gathering.replies[slot] is not None:
        return None
    reply = event if isinstance(event, ModelFailed) else wording.spoken(event.text).strip()
    if reply == "":
        reply = ModelFailed(call=event.call, code="empty_reply", detail="the model said nothing")
    replies = (*gathering.replies[:slot], reply, *gathering.replies[slot + 1 :])
    return replace(gathering, replies=replies)


def is_complete(gathering: Gathering) -> bool:
    return None not in gathering.replies


def texts(gathering: Gathering) -> tuple[str, ...]:
    """What was replied, without the slots that failed."""
    return tuple(reply for reply in gathering.replies if isinstance(reply, str))


def failure(gathering: Gathering) -> ModelFailed:
    """Of the first slot that failed."""
    return next(reply for reply in gathering.replies if isinstance(reply, ModelFailed))
