"""Laws of the session machine, over generated tasks, replies, outcomes and orders of events."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kowalski.protocol.messages.journal import (
    BudgetSpent,
    CancelHeard,
    CellFailed,
    CellFinished,
    CellStarted,
    Closed,
    ModelFailed,
    Opened,
    SessionEvent,
    SubCallAnswered,
)
from kowalski.protocol.messages.task import Asking, Budget, Quality, Shape, TaskSpec
from kowalski.rlm import session
from kowalski.rlm.session import AskModel, Finish, Fold, Note, RunCell
from kowalski.rlm.session_state import calls_max
from tests.kowalski.rlm.session_world import PEER, World, echo, finished, folded, replied, spec

LANGUAGES = ("python", "js", "bash")
BLOCKS = st.builds(
    lambda language, code: f"\n```{language}\n{code}\n```\n",
    st.sampled_from([*LANGUAGES, "cobol", ""]),
    st.sampled_from(["x", "y", "answer 7", "ready 42", "ready", "line " * 80]),
)
PIECES = st.one_of(BLOCKS, st.sampled_from(["words\n", "```python\nopen", "<think>", "\r\n", ""]))
REPLIES = st.one_of(
    st.lists(PIECES, max_size=4).map("".join),
    st.sampled_from(["```python\nanswer 7\n```", "words"]),
    st.just(ModelFailed(call=0, code="backend", detail="gone")),
)
JUDGEMENTS = st.one_of(
    st.sampled_from(["0.1", "0.4: meagre", "8/10", "1", "splendid"]),
    st.just(ModelFailed(call=0, code="backend", detail="gone")),
)
WISHES: st.SearchStrategy[dict[str, object]] = st.fixed_dictionaries(
    {},
    optional={
        "quality": st.builds(Quality, threshold=st.just(0.8), patience=st.integers(1, 3)),
        "shape": st.builds(
            Shape, json_schema=st.just('{"type": "integer"}'), tries=st.integers(1, 3)
        ),
        "asking": st.builds(Asking, drafts=st.integers(1, 3)),
        "budget": st.builds(Budget, calls=st.integers(1, 8), tokens=st.none() | st.integers(1, 60)),
    },
)
FAILURES = st.sampled_from(["ok", "ok", "ok", "error", "died", "unsupported", "unreachable"])
OUTCOMES = st.one_of(
    st.just(("ok",)),
    st.just(("unsupported",)),
    st.lists(FAILURES, min_size=1, max_size=5).map(tuple),
)
LIMITS = st.builds(
    session.SessionLimits,
    window_tokens=st.sampled_from([1, 100, 1000, 100_000]),
    reply_cells_max=st.integers(1, 3),
    blocks_max=st.integers(1, 5),
    cells_max=st.integers(1, 12),
    output_chars=st.sampled_from([20, 8192]),
)

# One example is a whole task, and the machine may be busy.
patient = settings(deadline=None)


@dataclass(frozen=True)
class Scene:
    task: TaskSpec
    opening: Opened
    limits: session.SessionLimits
    replies: tuple[str | ModelFailed, ...]
    judgements: tuple[str | ModelFailed, ...]
    outcomes: tuple[str, ...]

    def fresh(self) -> session.Session:
        return session.new_session(self.task, limits=self.limits)

    def world(self) -> World:
        return World(self.replies, run=self.run, judgements=self.judgements)

    def run(self, cell: RunCell) -> CellFinished | CellFailed:
        outcome = self.outcomes[cell.cell % len(self.outcomes)]
        if outcome in {"unsupported", "unreachable"}:
            return CellFailed(cell=cell.cell, code=outcome, detail=f"no {cell.language}")
        if outcome == "died":
            return finished(cell.cell, "", status="died", is_session_alive=False)
        if outcome == "error":
            return finished(cell.cell, "Traceback", status="error")
        return echo(cell)


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    mode = draw(st.sampled_from(["blocks", "direct", "rlm"]))
    prompt = "Please:" + "".join(draw(st.lists(BLOCKS, max_size=6)))
    model = None if mode == "blocks" and draw(st.booleans()) else "m"
    wishes = draw(WISHES)
    return Scene(
        task=spec(prompt, turns=draw(st.integers(1, 6)), **wishes),
        opening=Opened.model_validate({"mode": mode, "model": model}),
        limits=draw(LIMITS),
        replies=tuple(draw(st.lists(REPLIES, min_size=1, max_size=6))),
        judgements=tuple(draw(st.lists(JUDGEMENTS, min_size=1, max_size=4))),
        outcomes=draw(OUTCOMES),
    )


def lived(scene: Scene, take: Callable[[int], int]) -> World:
    """The scene from beginning to end, waiting things being answered in the order of `take`."""
    world = scene.world()
    world.journal.append(scene.opening)
    state, effects = session.step(scene.fresh(), scene.opening)
    world.live(state, effects, take=take)
    return world


@patient
@given(scenes(), st.randoms(use_true_random=False))
def test_every_history_ends_in_one_closing_after_boundedly_many_effects(
    scene: Scene, order: random.Random
) -> None:
    world = lived(scene, order.randrange)
    assert [isinstance(event, Closed) for event in world.journal].count(True) == 1
    state = session.replay(scene.fresh(), world.journal)
    assert len(world.asked) <= calls_max(state)
    assert len(world.asked) <= (scene.task.budget.calls or len(world.asked))
    assert len(world.cells) <= scene.limits.cells_max
    assert len({cell.cell for cell in world.cells}) == len(world.cells)
    assert len({asked.call for asked in world.asked}) == len(world.asked)


def in_turn(_waiting: int) -> int:
    """Which of those that wait is answered: several drafts within one budget depend on that."""
    return 0


@patient
@given(scenes())
def test_whoever_continues_from_any_prefix_ends_as_if_nothing_had_happened(scene: Scene) -> None:
    undisturbed = lived(scene, in_turn)
    for length in range(len(undisturbed.journal) + 1):
        world = scene.world()
        world.journal += undisturbed.journal[:length] or [scene.opening]
        state = session.replay(scene.fresh(), world.journal)
        session.check(state)
        world.live(state, session.outstanding(state), take=in_turn)
        assert world.journal[-1] == undisturbed.journal[-1]
        # No question and no cell that was answered is asked or run again.
        answered = {event.call for event in undisturbed.journal[:length] if hasattr(event, "call")}
        ended = {
            event.cell
            for event in undisturbed.journal[:length]
            if isinstance(event, CellFinished | CellFailed)
        }
        assert answered.isdisjoint(asked.call for asked in world.asked)
        assert ended.isdisjoint(cell.cell for cell in world.cells)


@patient
@given(scenes(), st.randoms(use_true_random=False), st.integers(0, 30))
def test_a_task_that_is_interrupted_replays_to_its_end(
    scene: Scene, order: random.Random, at: int
) -> None:
    interruption = order.choice(
        [CancelHeard(reason="enough"), BudgetSpent(limit="timeout", detail="60 s")]
    )
    journal = lived(scene, order.randrange).journal[:-1][: 1 + at]
    state = session.replay(scene.fresh(), journal)
    after, effects = session.step(state, interruption)
    again = session.replay(scene.fresh(), [*journal, interruption])
    assert after == again
    assert len(session.outstanding(again)) == 1
    assert effects in (session.outstanding(again), ())


@patient
@given(scenes(), st.randoms(use_true_random=False))
def test_the_same_events_give_the_same_states_and_effects(
    scene: Scene, order: random.Random
) -> None:
    journal = lived(scene, order.randrange).journal
    one, two = scene.fresh(), scene.fresh()
    for event in journal:
        before = one
        one, effects = session.step(one, event)
        two, again = session.step(two, event)
        assert (one, effects) == (two, again)
        assert session.step(before, event) == (one, effects)
    assert one == session.replay(scene.fresh(), journal)


@patient
@given(scenes(), st.randoms(use_true_random=False))
def test_what_is_outstanding_is_what_was_asked_for_and_not_answered(
    scene: Scene, order: random.Random
) -> None:
    state = scene.fresh()
    asked: list[session.Effect] = []
    for event in lived(scene, order.randrange).journal:
        state, effects = session.step(state, event)
        asked += [effect for effect in effects if not isinstance(effect, Note)]
        left = session.outstanding(state)
        assert all(effect in asked for effect in left)
        asked = list(left)


@settings(max_examples=60, stateful_step_count=40, deadline=None)
class AnyEvents(RuleBasedStateMachine):
    """Events as they should come, and as they should not: late, twice, of other cells."""

    @initialize(scene=scenes())
    def open(self, scene: Scene) -> None:
        self.scene = scene
        self.state = scene.fresh()
        self.journal: list[SessionEvent] = []
        self.turns = 0
        self.hear(scene.opening)

    def hear(self, event: SessionEvent) -> None:
        self.state, _ = session.step(self.state, event)
        self.journal.append(event)

    @rule(pick=st.integers(0, 5))
    def answer_something(self, pick: int) -> None:
        effects = session.outstanding(self.state)
        if effects:
            world = self.scene.world()
            for event in world.answer(effects[pick % len(effects)]):
                self.hear(event)

    @rule(call=st.integers(0, 8), reply=REPLIES)
    def reply(self, call: int, reply: str | ModelFailed) -> None:
        if isinstance(reply, ModelFailed):
            self.hear(reply.model_copy(update={"call": call}))
        else:
            self.hear(replied(call, reply))

    @rule(cell=st.integers(0, 12), answer=st.sampled_from([None, "", "7"]), ready=st.booleans())
    def finish_a_cell(self, cell: int, answer: str | None, ready: bool) -> None:
        self.hear(finished(cell, "out", answer=answer, is_ready=ready))

    @rule(cell=st.integers(0, 12))
    def start_or_ask_in_a_cell(self, cell: int) -> None:
        self.hear(CellStarted(cell=cell, language="python", code="x", peer=PEER))
        text = "said"
        self.hear(
            SubCallAnswered.model_validate(
                {"cell": cell, "ordinal": 0, "prompt": "0" * 64, "text": text}
            )
        )

    @rule(cell=st.integers(0, 12))
    def fail_a_cell(self, cell: int) -> None:
        self.hear(CellFailed(cell=cell, code="unsupported", detail="no"))

    @rule()
    def fold(self) -> None:
        self.hear(folded("text", 10))

    @rule(again=st.integers(0, 100))
    def hear_something_again(self, again: int) -> None:
        event = self.journal[again % len(self.journal)]
        if not isinstance(event, Closed):
            self.hear(event)

    @invariant()
    def what_must_hold_holds(self) -> None:
        if not hasattr(self, "state"):
            return
        session.check(self.state)
        effects = session.outstanding(self.state)
        languages = [effect.language for effect in effects if isinstance(effect, RunCell)]
        calls = [effect.call for effect in effects if isinstance(effect, AskModel)]
        assert len(set(languages)) == len(languages) <= (3 if self.state.mode == "blocks" else 1)
        assert len(set(calls)) == len(calls)
        assert len(effects) == max(len(languages), len(calls)) or len(effects) <= 1
        assert all(isinstance(one, AskModel | RunCell | Fold | Finish) for one in effects)

    def teardown(self) -> None:
        if hasattr(self, "state"):
            assert session.replay(self.scene.fresh(), self.journal) == self.state


TestAnyEvents = AnyEvents.TestCase


def test_the_laws_see_every_way_a_session_can_go() -> None:
    """Guards the generators: without folds, refusals or refinements the laws would prove little."""
    seen: set[str] = set()

    @settings(max_examples=1000, deadline=None, database=None, derandomize=True)
    @given(scenes(), st.randoms(use_true_random=False))
    def look(scene: Scene, order: random.Random) -> None:
        world = lived(scene, order.randrange)
        seen.update(event.KIND for event in world.journal)
        seen.update(asked.purpose for asked in world.asked)
        closed = world.journal[-1]
        assert isinstance(closed, Closed)
        seen.add(closed.detail.partition(":")[0])

    look()
    expected = (
        "journal/folded journal/cell-failed direct turn refine extract unrefined unfinished "
        "unready extracted no_language no_answer backend unreachable empty_reply evaluate draft "
        "part aggregate bad_answer below unjudged calls tokens"
    )
    assert set(expected.split()) <= seen


@pytest.mark.parametrize("kind", ["asked", "cells"])
def test_no_effect_is_performed_after_the_end(kind: str) -> None:
    world = World(("```python\nready 1\n```\n```js\nx\n```",))
    world.go(spec("?", "rlm"))
    assert len(getattr(world, kind)) == 1
