"""Where work is sent: to those who can do it, in time, no more often than the budgets allow."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from kowalski.mesh.core.placement import Kind
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.base import Failed, Message, Refused
from kowalski.protocol.messages.folding import FoldAsked
from kowalski.protocol.messages.inference import CompletionAsked, CompletionDone
from kowalski.protocol.messages.repl import CellAsked
from kowalski.protocol.messages.task import Grant, Renewal
from simulations.checkers.submitters import Submitters
from simulations.places import Part
from simulations.witness import NoChecker, Said, Witness

SLACK_S = 0.05
WINDOW_S = 10.0
RETRY_SHARE = 0.2
RETRIES_PER_S = 1.0
HEDGE_SHARE = 0.05
HEDGES_FREE = 2
"""What is promised (docs/decisions, `retry_budget`, `hedging`), and not what the code says."""

Work = CellAsked | CompletionAsked | FoldAsked


class Able(NoChecker):
    """`placed_with_the_able`: nobody is sent what it has never offered to do."""

    def __init__(self, witness: Witness, parts: Sequence[Part]) -> None:
        super().__init__(witness)
        self._parts = parts

    def said(self, said: Said) -> None:
        if said.speaker < 0 or said.hearer < 0 or not said.is_first or not said.by_asker:
            return
        wrong = self._why_not(said.message, self._parts[said.hearer])
        if wrong is not None:
            self.witness.check(
                "placed_with_the_able",
                holds=not wrong,
                words=f"{said.message.KIND} of node {said.speaker} to node {said.hearer}: {wrong}",
            )

    def _why_not(self, message: Message, part: Part) -> str | None:
        """Empty if it may be sent there; None for what goes anywhere."""
        match message:
            case CellAsked(language=language):
                is_able = language in part.languages and "repl" in part.roles
                return "" if is_able else f"no {language} there"
            case CompletionAsked(model=model):
                is_able = model in part.models and "infer" in part.roles
                return "" if is_able else f"no model {model} there"
            case FoldAsked():
                return "" if "fold" in part.roles else "it does not fold"
            case Grant():
                return "" if "coordinate" in part.roles else "it does not lead"
            case _:
                return None


class Deadlines(NoChecker):
    """`nothing_is_sent_too_late`, `time_left_shrinks`: a task's time ends at each hop before it.

    By the clock of its coordinator, from what its submitter told it.
    """

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._submitters = Submitters(witness)
        self._ends_s: dict[tuple[int, int, TaskId, int], float] = {}
        """By coordinator, submitter, task and term."""

    def began(self, number: int) -> None:
        """A new process has been told nothing."""
        for key in [key for key in self._ends_s if key[0] == number]:
            del self._ends_s[key]

    def heard(self, said: Said) -> None:
        message = said.message
        if isinstance(message, Grant | Renewal) and said.speaker >= 0:
            key = (said.hearer, self._submitters.of(said), message.task, message.term)
            ends_s = said.own_s + message.remaining_s
            self._ends_s[key] = max(ends_s, self._ends_s.get(key, ends_s))

    def said(self, said: Said) -> None:
        message = said.message
        if not said.is_first or not isinstance(message, CellAsked | CompletionAsked):
            return
        if message.task is None or message.term is None:
            return
        whose = self._submitters.of(said)
        ends_s = self._ends_s.get((said.speaker, whose, message.task, message.term))
        if ends_s is None:
            return
        who = f"node {said.speaker} sent {message.KIND} of {message.task}"
        left_s = ends_s - said.own_s
        self.witness.check(
            "nothing_is_sent_too_late",
            holds=left_s >= -SLACK_S,
            words=f"{who} {-left_s:.2f} s after the end of its time",
        )
        self.witness.check(
            "time_left_shrinks",
            holds=message.remaining_s <= max(left_s, 0.0) + SLACK_S,
            words=f"{who} with {message.remaining_s:.2f} s, where {left_s:.2f} s are left",
        )


@dataclass(slots=True)
class _Asker:
    """What one process has asked models for, by its own clock."""

    open: dict[Hashable, int] = field(default_factory=dict)
    """Calls that have no answer yet; how often each was sent and taken on."""
    calls: dict[Hashable, Hashable] = field(default_factory=dict)
    """By request: the call."""
    asked_s: deque[float] = field(default_factory=deque)
    again_s: deque[float] = field(default_factory=deque)

    def forget(self, before_s: float) -> None:
        for times in (self.asked_s, self.again_s):
            while times and times[0] < before_s:
                times.popleft()


class RetryBudgets(NoChecker):
    """`retry_budget`: of its model calls a node sends few again, hedges among them.

    At most 20 % of those of the last ten seconds, and one a second; 5 % may be hedged. Who was told
    that a peer is full may go to the next.
    """

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._askers: dict[int, _Asker] = {}

    def began(self, number: int) -> None:
        self._askers[number] = _Asker()

    def said(self, said: Said) -> None:
        message = said.message
        if said.by_asker and said.is_first and said.speaker >= 0:
            if isinstance(message, CompletionAsked) and message.task is not None:
                self._asked(said, message)
        elif not said.by_asker and isinstance(message, CompletionDone | Refused | Failed):
            self._answered(said, message)

    def _asked(self, said: Said, message: CompletionAsked) -> None:
        asker, now = self._askers.setdefault(said.speaker, _Asker()), said.own_s
        call = (message.task, message.term, message.model, message.messages, message.prompt)
        asker.calls[said.request] = call
        asker.forget(now - WINDOW_S)
        if call not in asker.open:
            asker.open[call] = 0
            asker.asked_s.append(now)
        elif asker.open[call]:
            asker.again_s.append(now)
        asker.open[call] += 1
        # The budget counts whole seconds, of which the first may be over by now: one more counts.
        most = (
            (RETRY_SHARE + HEDGE_SHARE) * len(asker.asked_s)
            + RETRIES_PER_S * (WINDOW_S + 1)
            + HEDGES_FREE
        )
        self.witness.check(
            "retry_budget",
            holds=len(asker.again_s) <= most,
            words=f"node {said.speaker} sent {len(asker.again_s)} calls again in {WINDOW_S:g} s, "
            f"where {len(asker.asked_s)} were made",
        )

    def _answered(self, said: Said, message: Message) -> None:
        asker = self._askers.get(said.hearer)
        call = asker.calls.pop(said.request, None) if asker else None
        if asker is None or call is None or call not in asker.open:
            return
        if isinstance(message, CompletionDone):
            del asker.open[call]
        elif isinstance(message, Refused):
            asker.open[call] -= 1


def _none(_number: int) -> tuple[tuple[PeerId, Kind], ...]:
    return ()


class Probes(NoChecker):
    """`one_probe_half_open`: of a breaker that lets one request find out, one is under way."""

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self.under_way: Callable[[int], Sequence[tuple[PeerId, Kind]]] = _none
        """Of a node, by its number."""

    def said(self, said: Said) -> None:
        is_ours = said.is_first and said.by_asker and said.speaker >= 0
        if not is_ours or not isinstance(said.message, Work):
            return
        probes = Counter(self.under_way(said.speaker))
        if not probes:
            return
        (peer, kind), most = probes.most_common(1)[0]
        self.witness.check(
            "one_probe_half_open",
            holds=most == 1,
            words=f"node {said.speaker} has {most} probes for {kind} under way at node "
            f"{self.witness.number_of(peer)}",
        )
