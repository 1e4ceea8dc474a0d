"""A failure detector among others whom the test plays, for the tests beside this."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TypeVar

from kowalski.mesh.core import failure_detector as machine
from kowalski.mesh.core.failure_detector_events import (
    Answer,
    AnswerHelp,
    AskHelp,
    Effect,
    Event,
    Heard,
    Probe,
    ProbeAnswered,
    ProbeFailed,
    Tell,
    TimePassed,
)
from kowalski.mesh.core.failure_detector_state import FailureDetector, Params, new
from kowalski.mesh.core.membership import Claim, Held
from kowalski.protocol.ids import PeerId

ME = PeerId("MMMMMMMM")
PARAMS = Params()

E = TypeVar("E", bound=Effect)


def peer(number: int) -> PeerId:
    return PeerId(f"peer{number:04d}")


def of_kind(effects: list[Effect], kind: type[E]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]


SAYING = Probe | AskHelp | Tell | Answer | AnswerHelp


@dataclass
class Detector:
    """Runs one machine and checks it after each step. `now` moves only when told to."""

    state: FailureDetector = field(default_factory=lambda: new(ME, 1))
    now: float = 100.0
    done: list[Effect] = field(default_factory=list)
    """All effects so far."""
    held: Held | None = None

    def hear(self, event: Event) -> list[Effect]:
        self.state, effects = machine.step(self.state, event, self.now)
        machine.check(self.state)
        self.held = machine.check_news(self.state, self.held)
        self.done += effects
        return list(effects)

    def tick(self) -> list[Effect]:
        """Let time pass to the next deadline."""
        at = machine.wake_at(self.state)
        assert at < inf, "it has nothing to wait for"
        self.now = max(self.now, at)
        effects = self.hear(TimePassed())
        assert machine.wake_at(self.state) > self.now or self.state.probe_at == self.now
        return effects

    def until(self, kind: type[E], *, within_s: float = 60.0) -> E:
        """Let time pass until the machine wants something of this kind."""
        give_up_at = self.now + within_s
        while machine.wake_at(self.state) <= give_up_at:
            for effect in self.tick():
                if isinstance(effect, kind):
                    return effect
        raise AssertionError(f"no {kind.__name__} within {within_s} s")

    def never(self, kind: type[Effect], *, within_s: float) -> None:
        """Let time pass, everybody answering, and see no such effect."""
        give_up_at = self.now + within_s
        self.answer_all()
        while machine.wake_at(self.state) <= give_up_at:
            effects = self.tick()
            assert not of_kind(effects, kind), effects
            self.answer_all()
        self.now = max(self.now, give_up_at)

    def said(self) -> list[Claim]:
        """Every claim on a message so far, as often as it was said."""
        messages = [effect for effect in self.done if isinstance(effect, SAYING)]
        return [claim for message in messages for claim in message.claims]

    def answer_all(self) -> None:
        """Let all probes under way be answered."""
        for number in tuple(self.state.probes):
            self.hear(ProbeAnswered(number, ()))


def among(count: int, *, params: Params | None = None) -> Detector:
    """A machine that knows `count` others, of whom nothing is news any more."""
    detector = Detector(new(ME, 1, params))
    detector.hear(Heard(peer(0), tuple(Claim(peer(n), "alive", 1) for n in range(count))))
    detector.never(AskHelp, within_s=10.0)
    detector.done.clear()
    return detector


def lose_at_once(detector: Detector, probe: Probe) -> list[Effect]:
    """Both sendings of a probe get nowhere."""
    return [
        *detector.hear(ProbeFailed(probe.number)),
        *detector.hear(ProbeFailed(probe.number)),
    ]
