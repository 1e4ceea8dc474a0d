"""Which questions go together, and that each request to a model is counted once."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.core.question_groups import (
    LEAST_S,
    MOMENT_S,
    PATIENCE_S_MIN,
    QUICK_S,
    Asking,
    Group,
    Line,
    Paces,
    Question,
    SecondTries,
    group_size,
    patience_s,
)
from kowalski.protocol.errors import RemoteProtocolError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.inference import COMPLETIONS_MAX, OneCompletion

BOX, LAP = PeerId("12D3KooWBox"), PeerId("12D3KooWLap")


def group(count: int) -> Group:
    return Group([Question(f"q {n}", f"cell-0-{n}-0") for n in range(count)])


def ask(asked: Group) -> Asking:
    asking = asked.ask()
    assert asking is not None
    return asking


def answers(*slots: int) -> list[OneCompletion]:
    return [OneCompletion(slot=slot, text=f"a {slot}") for slot in slots]


def attempts(questions: tuple[Question, ...]) -> list[int]:
    return [one.attempts for one in questions]


@pytest.mark.parametrize("each_s", [None, QUICK_S * 1.01, 30.0])
def test_what_is_slow_or_unknown_is_asked_alone(each_s: float | None) -> None:
    assert group_size(each_s, waiting=1000, slots=1) == 1


@given(st.floats(0, 100) | st.none(), st.integers(1, 10_000), st.integers(0, 1000))
def test_a_group_is_bounded_by_a_moment_and_by_its_share(
    each_s: float | None, waiting: int, slots: int
) -> None:
    size = group_size(each_s, waiting=waiting, slots=slots)
    assert 1 <= size <= min(COMPLETIONS_MAX, waiting)
    if size > 1:
        assert each_s is not None
        assert size * each_s <= MOMENT_S * 1.001 + 1e-4 * size
        is_share = (size - 1) * 2 * max(1, slots) < waiting
        assert is_share or size * each_s <= LEAST_S * 1.001, "some is left for every slot"


def test_a_slow_peer_gets_as_much_less_as_it_is_slower() -> None:
    # Four slots that take 10 ms, and four that take 100 ms: in 10 s the latter do a tenth.
    quick, slow = (group_size(s, waiting=440, slots=n) for s, n in ((0.01, 4.4), (0.1, 44.0)))
    assert (quick, slow) == (50, 5)


def test_towards_the_end_nobody_gets_more_than_it_answers_before_the_quicker_are_done() -> None:
    sizes = [group_size(0.05, waiting=100, slots=9, within_s=s) for s in (inf, 0.2, 0.11, 0.01)]
    assert sizes == [6, 4, 2, 1]


def test_what_a_cell_waits_for_is_counted_by_whom_it_is_with() -> None:
    asked, bound, seeking = group(4), group(3), group(2)
    asked.at = [BOX]
    ask(asked).tell(answers(0))
    bound.at = [BOX]
    line = Line(5, [asked, bound, seeking])
    assert line.unasked == 5 + 3 + 2
    assert line.offered == 1
    assert line.load() == {BOX: (3, 2)}


def test_one_that_holds_its_group_up_goes_on_alone_and_the_others_elsewhere() -> None:
    asked = group(4)
    asking = ask(asked)
    asking.tell(answers(0))
    given_up = asked.break_off()
    assert [one.prompt for one in given_up] == ["q 1", "q 2", "q 3"]
    assert [one.is_alone for one in given_up] == [True, False, False]
    assert asked.ask() is None
    assert patience_s(0.001) == PATIENCE_S_MIN
    assert patience_s(1.0) == pytest.approx(10.0)


@given(st.lists(st.integers(1, 64), max_size=100))
def test_no_more_than_one_in_fifty_is_asked_again(groups: list[int]) -> None:
    tries, taken = SecondTries(), 0
    for answered in groups:
        tries.answered(answered)
        taken += tries.take()
        assert taken <= 1 + 0.02 * sum(groups) + 1e-6
    assert not groups or taken >= 1, "a straggler of the first group is not waited for"
    for _ in range(3):
        tries.take()
    assert not tries.take(), "a quiet time saves up three at most"


def test_a_group_that_two_are_asked_is_not_broken_off() -> None:
    asked = group(4)
    one, other = ask(asked), ask(asked)
    assert asked.break_off() == []
    other.end()
    assert len(asked.break_off()) == 4
    one.end()
    assert asked.break_off() == []


def test_a_pace_follows_what_was_seen_lately_at_each_peer() -> None:
    paces = Paces()
    assert paces.quickest_s("inference m", 1.0) is None
    paces.learn(BOX, "inference m", 3.0)  # it had to be loaded
    for _ in range(20):
        paces.learn(BOX, "inference m", 0.01)
    paces.learn(LAP, "inference m", 2.0)
    quickest_s = paces.at_s(BOX, "inference m", 1.0)
    assert paces.at_s(BOX, "inference m", 2.0) == pytest.approx(0.02, rel=0.5)
    assert paces.at_s(LAP, "inference m", 2.0) == pytest.approx(4.0)
    assert paces.at_s(LAP, "inference other", 2.0) is None
    assert paces.quickest_s("inference m", 1.0) == quickest_s


def test_what_is_answered_counts_once_and_the_rest_stays() -> None:
    asked = group(3)
    asking = ask(asked)
    told = asking.tell(answers(0, 1))
    assert [question.prompt for question, _ in told] == ["q 0", "q 1"]
    assert [one.prompt for one in asked.unanswered] == ["q 2"]
    assert attempts(asking.questions) == [1, 1, 1], "the third is under way"
    with pytest.raises(RemoteProtocolError, match="2 of 3"):
        asking.check()
    asking.tell(answers(2))
    asking.check()
    assert attempts(asking.questions) == [1, 1, 1]


def test_a_group_that_was_answered_meanwhile_is_asked_no_more() -> None:
    whole = group(2)
    lost = ask(whole)
    lost.tell(answers(0, 1))
    lost.end()
    assert whole.ask() is None
    assert whole.under_way == 0


def test_of_those_lost_with_a_peer_only_the_one_under_way_was_asked() -> None:
    asked = group(4)
    first = ask(asked)
    first.tell(answers(0))
    first.end()
    second = ask(asked)
    assert [one.prompt for one in second.questions] == ["q 1", "q 2", "q 3"]
    second.tell(answers(0, 1, 2))
    assert attempts(first.questions) == [1, 2, 1, 1]


def test_a_refusal_asks_no_model() -> None:
    asked = group(2)
    asking = ask(asked)
    asking.refused()
    asking.end()
    assert attempts(asking.questions) == [0, 0]
    again = ask(asked)
    (told,) = again.tell([OneCompletion(slot=0, code="unsupported", is_refused=True)])
    assert told[0].attempts == 0
    again.tell(answers(1))
    assert attempts(again.questions) == [0, 1]


@pytest.mark.parametrize("slots", [(1,), (0, 0), (0, 1, 2)])
def test_answers_that_are_not_the_next_ones_are_refused(slots: tuple[int, ...]) -> None:
    asking = ask(group(2))
    with pytest.raises(RemoteProtocolError):
        asking.tell(answers(*slots))


def test_too_many_for_a_peer_are_given_back_unless_somebody_is_asked_for_them() -> None:
    asked = group(5)
    assert [one.prompt for one in asked.keep(3)] == ["q 3", "q 4"]
    asking = ask(asked)
    assert asked.keep(1) == []
    asking.end()
    assert [one.prompt for one in asked.keep(0)] == ["q 1", "q 2"]
