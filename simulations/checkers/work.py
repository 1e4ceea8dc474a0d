"""What is done: how often a cell runs and a model is asked, and that nothing is left over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable

from kowalski.node.core.task_ledger import Task
from kowalski.node.repl.scripted_sessions import ScriptedState
from kowalski.protocol.messages.base import Refused
from kowalski.protocol.messages.repl import CellAsked, CellDone
from simulations.plan import Ask
from simulations.toy_cells import sub_calls
from simulations.witness import NoChecker, Said, Witness
from simulations.world import World

EXECUTIONS_MAX = 40
"""Of one cell, whatever happens: terms, moves and replays are all bounded."""

STREAMS_PER_PEER_MAX = 16
"""Kept open between two nodes: one for each protocol and direction."""


class Executions(NoChecker):
    """`attempt_budget`: no cell runs twice in one session, nor without a fault at all.

    `session_is_whole`: each runs where those before it in its language have, and no others, back
    to the first or to one that ended its session. One that died with its session is not run again
    in the next: its task was told that what it did is gone. So the plan has it; `sessions.Sessions`
    goes by what was journalled, of cells that no plan knows as well.
    """

    def __init__(self, witness: Witness, asks: Iterable[Ask]) -> None:
        super().__init__(witness)
        self.begun: Counter[str] = Counter()
        self.was_full = False
        """Whether a cell was refused for want of room: then its session moves, and is run again."""
        self._asked: dict[Hashable, str] = {}
        """The code of cells that are under way, by who asked for them when."""
        self._died: set[str] = set()
        """The code of cells whose session ended in the middle of them."""
        self._before: dict[str, tuple[str, ...]] = {}
        """By the code of each cell: those of the cells before it, in its language."""
        for ask in asks:
            ran: dict[str, tuple[str, ...]] = {}
            for language, code in ask.cells:
                self._before[code] = ran.get(language, ())
                ran[language] = (*self._before[code], code)

    def began_cell(self, number: int, code: str, state: ScriptedState) -> None:
        """A `places.OnCell` of each node."""
        code = code.strip()
        before = self._before.get(code)
        if before is None:
            return  # a stranger's
        self.begun[code] += 1
        ran = tuple(one.strip() for one in state.codes)
        before = tuple(one for one in before if one in ran or one not in self._died)
        self.witness.check(
            "session_is_whole",
            holds=before[len(before) - len(ran) :] == ran,
            words=f"node {number} runs {code.splitlines()[-1]!r} after {ran}, not {before}",
        )
        self.witness.check(
            "attempt_budget",
            holds=code not in ran and self.begun[code] <= EXECUTIONS_MAX,
            words=f"node {number} runs {code.splitlines()[-1]!r} again, "
            f"{self.begun[code]} times in all",
        )

    def said(self, said: Said) -> None:
        match said.message:
            case Refused(reason="busy"):
                self.was_full = True
            case CellAsked(code=code):
                self._asked[said.request] = code.strip()
            case CellDone(is_session_alive=is_alive):
                done = self._asked.pop(said.request, "")
                if done and not is_alive:
                    self._died.add(done)
            case _:
                pass

    def check_all(self, asks: list[Ask], *, is_quiet: bool) -> None:
        """After the story: where nothing went wrong and nobody was full, each ran exactly once."""
        is_quiet = is_quiet and not self.was_full
        for ask in asks:
            for _, code in ask.cells:
                times = self.begun[code]
                self.witness.check(
                    "attempt_budget",
                    holds=times == 1 if is_quiet else times >= 1,
                    words=f"{ask.task}: {code.splitlines()[-1]!r} ran {times} times",
                )


def check_calls(world: World, asks: list[Ask], *, is_quiet: bool) -> None:
    """`calls_budget`: where nothing went wrong, each call reached one model, once."""
    calls = Counter(world.calls)
    for ask in asks:
        if ask.mode == "rlm":
            continue  # a model is asked for each turn
        asked = [call.prompt for _, code in ask.cells for call in sub_calls(code)]
        for wanted in asked if ask.cells else [ask.prompt]:
            times = calls[wanted]
            world.witness.check(
                "calls_budget",
                holds=times == 1 if is_quiet else 1 <= times <= EXECUTIONS_MAX,
                words=f"{ask.task}: {wanted!r} was asked {times} times",
            )


def leftovers(world: World) -> list[str]:
    """What is still held although every task is over, in words."""
    found: list[str] = []
    for place in world.places:
        if place.node is None or place.hands is None or place.transport is None:
            continue
        host, who = place.hands.host, f"node {place.number}"
        if host is not None and host.slots_free != host.slots:
            found.append(f"{who}: {host.slots - host.slots_free} sessions")
        if place.backend.in_flight:
            found.append(f"{who}: {place.backend.in_flight} model calls")
        hot = world.as_node(place.number, lambda node: node.mesh.facts_of(node.mesh.me).hot)
        if hot is not None:
            rooms = {"repl": hot.repl, "inference": hot.inference, "folding": hot.folding}
            for name, at in rooms.items():
                if at.running or at.queued:
                    found.append(f"{who}: {name} {at.running} running, {at.queued} queued")
        under_way = world.as_node(place.number, lambda node: node.work.placing.dispatch.under_way)
        if under_way:
            found.append(f"{who}: {under_way} requests under way")
        streams = place.transport.streams_open
        if streams > STREAMS_PER_PEER_MAX * (len(world.places) + 1):
            found.append(f"{who}: {streams} streams")
    return found


def is_same(before: Task, after: Task) -> bool:
    """Whether it is one task, which may have gone on meanwhile, and not a second begun."""
    return (
        (before.spec, before.submitted_unix_s) == (after.spec, after.submitted_unix_s)
        and after.term >= before.term
        and after.digests[: before.entries] == before.digests
    )
