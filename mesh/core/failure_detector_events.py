"""What a failure detector hears of, and what it wants done. See `failure_detector`.

Numbers tie an answer to its question: those of our own probes are the machine's, those of others'
questions are the shell's.
"""

from __future__ import annotations

from dataclasses import dataclass

from kowalski.mesh.core.membership import Claim, State
from kowalski.protocol.ids import PeerId

Claims = tuple[Claim, ...]

# --- events -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MemberMet:
    """It has proven on a connection that it belongs, and named its own incarnation."""

    peer: PeerId
    incarnation: int


@dataclass(frozen=True, slots=True)
class MemberExpelled:
    """It belongs no more. Claims about it must not be brought here from now on."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """Evidence, and no verdict: processes that die close their connections, so do routers."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class RequestUnanswered:
    """Somebody above asked this peer something and heard nothing."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class ProbeHeard:
    """Another peer probes us. Answered at once, with `Answer`."""

    number: int
    peer: PeerId
    claims: Claims


@dataclass(frozen=True, slots=True)
class Told:
    """Another peer passes news on. Answered at once, with `Answer`."""

    number: int
    peer: PeerId
    claims: Claims


@dataclass(frozen=True, slots=True)
class Heard:
    """What came back for what we told."""

    peer: PeerId
    claims: Claims


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    """By its target itself. May come late, and twice."""

    number: int
    claims: Claims


@dataclass(frozen=True, slots=True)
class ProbeFailed:
    """One sending of a probe got nowhere: no connection, or it broke. Silence is no such thing."""

    number: int


@dataclass(frozen=True, slots=True)
class HelpAsked:
    """A peer cannot reach `target` and asks whether we can, within `within_s` seconds."""

    number: int
    peer: PeerId
    target: PeerId
    within_s: float
    claims: Claims


@dataclass(frozen=True, slots=True)
class HelpAnswered:
    """By a helper of our probe. That it did not reach the target shows that it reached us."""

    number: int
    has_reached: bool
    claims: Claims


@dataclass(frozen=True, slots=True)
class HelpFailed:
    """We could not even ask a helper."""

    number: int


@dataclass(frozen=True, slots=True)
class SyncAsked:
    """A peer compares tables. Answered at once, with `AnswerSync`."""

    number: int
    peer: PeerId
    digest: int


@dataclass(frozen=True, slots=True)
class SyncAnswered:
    """`rows`: its table, or nothing where its digest was ours."""

    peer: PeerId
    digest: int
    rows: Claims


@dataclass(frozen=True, slots=True)
class Woke:
    """This machine was asleep, while the clocks of the others went on."""

    away_s: float


@dataclass(frozen=True, slots=True)
class Leave:
    """Say goodbye. Nothing is probed afterwards."""


@dataclass(frozen=True, slots=True)
class TimePassed:
    pass


Event = (
    MemberMet
    | MemberExpelled
    | ConnectionLost
    | RequestUnanswered
    | ProbeHeard
    | Told
    | Heard
    | ProbeAnswered
    | ProbeFailed
    | HelpAsked
    | HelpAnswered
    | HelpFailed
    | SyncAsked
    | SyncAnswered
    | Woke
    | Leave
    | TimePassed
)

SpokenBy = ProbeHeard | Told | Heard | HelpAsked | SyncAsked | SyncAnswered
"""What a peer has said of its own accord, or in answer to what was no probe."""

# --- effects ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeepIncarnation:
    """Must be on disk before anything that follows it is said."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask `peer` for a sign of life, and listen for `timeout_s`."""

    number: int
    peer: PeerId
    claims: Claims
    timeout_s: float


@dataclass(frozen=True, slots=True)
class AskHelp:
    """Ask `helper` whether it reaches `target`, and listen for `timeout_s`."""

    number: int
    helper: PeerId
    target: PeerId
    claims: Claims
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    number: int
    claims: Claims


@dataclass(frozen=True, slots=True)
class AnswerHelp:
    number: int
    has_reached: bool
    claims: Claims


@dataclass(frozen=True, slots=True)
class Tell:
    """Pass news on. Best effort."""

    peer: PeerId
    claims: Claims


@dataclass(frozen=True, slots=True)
class AskSync:
    """Compare tables with `peer`. Best effort."""

    peer: PeerId
    digest: int


@dataclass(frozen=True, slots=True)
class AnswerSync:
    number: int
    digest: int
    rows: Claims


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """The mesh thinks differently of a member. `before` None: it is new to us.

    `failed` is a verdict of the mesh, `left` the peer's own word. Neither says whether a peer can
    be reached from here: that is routability, which is local and never part of this.
    """

    peer: PeerId
    before: State | None
    state: State
    incarnation: int


@dataclass(frozen=True, slots=True)
class PeerMissed:
    """We ourselves got no sign of life in time: for routability, not for the mesh."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class PartitionSuspected:
    """So many of the others are suspect at once that verdicts wait."""

    suspects: int
    others: int


@dataclass(frozen=True, slots=True)
class PartitionOver:
    pass


@dataclass(frozen=True, slots=True)
class CheckConnections:
    """We were away: what was connected then may be so no more."""


@dataclass(frozen=True, slots=True)
class LookAtTheClock:
    """There is nobody to probe, and so nobody who would tell us that we were away."""


Effect = (
    KeepIncarnation
    | Probe
    | AskHelp
    | Answer
    | AnswerHelp
    | Tell
    | AskSync
    | AnswerSync
    | MemberChanged
    | PeerMissed
    | PartitionSuspected
    | PartitionOver
    | CheckConnections
    | LookAtTheClock
)
