"""Which peer gets the next questions of a batch, and who gets none of the last ones."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace
from math import inf

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kowalski.node.core.batch_tail import (
    Ahead,
    Server,
    Tail,
    ToWhomIsFree,
    next_place,
    not_to_ask,
    rest_s,
)
from kowalski.protocol.ids import PeerId

BOX, LAP, PHONE = PeerId("12D3KooWBox"), PeerId("12D3KooWLap"), PeerId("12D3KooWPhone")

NOBODY = frozenset[PeerId]()

UNEQUAL = (Server(BOX, 0.01, 4), Server(LAP, 0.05, 4), Server(PHONE, 0.2, 4))

servers = st.lists(
    st.tuples(st.sampled_from([0.01, 0.02, 0.05, 0.2, 1.0]), st.integers(1, 4)),
    min_size=1,
    max_size=5,
).map(
    lambda found: [
        Server(PeerId(f"12D3KooW{number}"), each_s, slots)
        for number, (each_s, slots) in enumerate(found)
    ]
)


def least_s(peers: Sequence[Server], questions: int) -> float:
    """The least time in which so many whole questions are answered."""
    ends = [
        one.pace_s * (nth + 1)
        for one in peers
        for nth in range(questions)
        for _ in range(one.slots)
    ]
    return sorted(ends)[questions - 1]


def ends_s(
    peers: Sequence[Server], questions: int, *, stalled: frozenset[PeerId] = NOBODY
) -> float:
    """When all are answered if each free slot takes the next question unless it is passed over.

    Those who have `stalled` answer nothing any more; what they were given does not count.
    """
    tail, now, last = Tail(), 0.0, 0.0
    busy: list[tuple[float, int]] = []
    under_way = [0] * len(peers)
    while questions or busy:
        state = [replace(one, under_way=n) for one, n in zip(peers, under_way, strict=True)]
        over = tail.passed_over(state, questions, now)
        able = [
            at for at, one in enumerate(state) if one.peer not in over and one.under_way < one.slots
        ]
        if questions and able:
            at = min(able, key=lambda at: peers[at].pace_s)
            if peers[at].peer not in stalled:
                heapq.heappush(busy, (now + peers[at].pace_s, at))
            under_way[at] += 1
            questions -= 1
            continue
        ends = busy[0][0] if busy else inf
        assert min(ends, tail.wake_at) < inf, "somebody is asked in the end"
        if questions and tail.wake_at < ends:
            now = tail.wake_at
            continue
        now, at = heapq.heappop(busy)
        under_way[at] -= 1
        last = now
    return last


@given(servers, st.integers(1, 200))
def test_a_batch_ends_about_as_soon_as_it_could(peers: list[Server], questions: int) -> None:
    assert ends_s(peers, questions) <= 1.4 * least_s(peers, questions)


@given(servers, st.integers(1, 200))
def test_if_the_quickest_stall_the_others_wait_no_longer_than_they_take_themselves(
    peers: list[Server], questions: int
) -> None:
    quickest_s = min(one.pace_s for one in peers)
    stalled = frozenset(one.peer for one in peers if one.pace_s == quickest_s)
    others = [one for one in peers if one.peer not in stalled]
    assume(others)
    waited_s = max(one.pace_s for one in others)
    assert ends_s(peers, questions, stalled=stalled) <= waited_s + 2 * least_s(others, questions)


def test_the_slowest_gets_none_of_the_last_ones() -> None:
    # 480 a second are answered by the two others: in a fifth of a second 96 of them.
    tail = Tail()
    assert tail.passed_over(UNEQUAL, 300, 0.0) == NOBODY
    assert tail.passed_over(UNEQUAL, 85, 0.1) == {PHONE}
    assert tail.passed_over(UNEQUAL, 15, 0.2) == {PHONE, LAP}
    assert ends_s(list(UNEQUAL), 300) <= 1.05 * least_s(list(UNEQUAL), 300)


def test_what_the_quick_have_yet_to_answer_is_counted() -> None:
    busy = (replace(UNEQUAL[0], under_way=90), *UNEQUAL[1:])
    assert rest_s(busy, 0)[LAP] == pytest.approx(90 / 400 + 0.01)
    assert Tail().passed_over(busy, 10, 0.0) == NOBODY
    assert Tail().passed_over(UNEQUAL, 10, 0.0) == {LAP, PHONE}


@given(servers, st.integers(0, 200))
def test_the_quickest_are_never_passed_over_and_the_slower_first(
    peers: list[Server], unasked: int
) -> None:
    over = Tail().passed_over(peers, unasked, 0.0)
    quickest_s = min(one.pace_s for one in peers)
    assert all(one.peer not in over for one in peers if one.pace_s == quickest_s)
    slow = [one.pace_s for one in peers if one.peer in over]
    assert all(one.peer in over for one in peers if slow and one.pace_s >= max(slow))


def test_who_was_passed_over_is_asked_after_as_long_as_it_takes_itself() -> None:
    tail = Tail()
    assert tail.passed_over(UNEQUAL, 10, 1.0) == {LAP, PHONE}
    assert tail.wake_at == pytest.approx(1.05)
    assert tail.passed_over(UNEQUAL, 9, 1.06) == {PHONE}
    assert tail.wake_at == pytest.approx(1.2)
    assert tail.passed_over(UNEQUAL, 8, 1.21) == NOBODY
    assert tail.wake_at == inf
    # There is much again, and then little.
    assert tail.passed_over(UNEQUAL, 300, 2.0) == NOBODY
    assert tail.passed_over(UNEQUAL, 10, 2.1) == {LAP, PHONE}


def test_whose_pace_is_not_known_is_not_passed_over_and_not_counted_on() -> None:
    unknown = Server(LAP, None, 4)
    assert Tail().passed_over([unknown, UNEQUAL[2]], 1, 0.0) == NOBODY
    assert Tail().passed_over([unknown, *UNEQUAL[::2]], 1, 0.0) == {PHONE}
    assert Tail().passed_over([unknown], 1, 0.0) == NOBODY


def test_while_the_quick_is_gone_nobody_waits_for_it() -> None:
    tail = Tail()
    assert PHONE in tail.passed_over(UNEQUAL, 10, 0.0)
    assert tail.passed_over(UNEQUAL[2:], 10, 0.01) == NOBODY


def test_free_slots_are_filled_first_then_the_quick_get_one_group_ahead() -> None:
    box, lap = Server(BOX, 0.01, 1), Server(LAP, 0.05, 1)
    assert next_place([box, lap], 0, NOBODY) == ToWhomIsFree()
    assert next_place([box, lap], 1, NOBODY) == ToWhomIsFree()
    assert next_place([box, lap], 2, NOBODY) is None, "both are about to be asked"
    busy = [replace(box, groups=1), replace(lap, groups=1)]
    assert next_place(busy, 0, NOBODY) == Ahead(BOX), "the slow one has enough"
    assert next_place(busy, 1, NOBODY) is None, "one that found nobody waits already"
    assert next_place([replace(box, groups=2), busy[1]], 0, NOBODY) is None
    assert next_place([replace(box, groups=1), lap], 0, frozenset({LAP})) == Ahead(BOX)


def test_as_quick_ones_are_filled_evenly() -> None:
    alike = [Server(BOX, 0.01, 2, groups=3), Server(LAP, 0.015, 2, groups=2)]
    assert next_place(alike, 0, NOBODY) == Ahead(LAP)
    assert next_place(alike, 0, NOBODY, full={LAP}) == Ahead(BOX)
    assert next_place(alike, 0, NOBODY, full={LAP, BOX}) is None


@given(
    st.lists(
        st.builds(
            Server,
            st.sampled_from([BOX, LAP, PHONE]),
            st.sampled_from([None, 0.01, 0.2]),
            st.integers(0, 3),
            groups=st.integers(0, 7),
        ),
        unique_by=lambda one: one.peer,
    ),
    st.integers(0, 5),
    st.frozensets(st.sampled_from([BOX, LAP, PHONE])),
)
def test_never_more_than_twice_the_slots_and_never_nobody_where_nothing_is_under_way(
    peers: list[Server], offered: int, over: frozenset[PeerId]
) -> None:
    place = next_place(peers, offered, over)
    if offered + sum(one.groups for one in peers) == 0:
        assert place == ToWhomIsFree()
    if isinstance(place, Ahead):
        chosen = next(one for one in peers if one.peer == place.peer)
        assert chosen.groups < 2 * chosen.slots
        assert chosen.peer not in over
        assert chosen.each_s is not None


def test_who_has_a_group_for_each_slot_is_not_asked_for_an_offer_while_others_have_not() -> None:
    busy, free, over = replace(UNEQUAL[0], groups=4), UNEQUAL[1], frozenset({PHONE})
    assert not_to_ask([busy, free, UNEQUAL[2]], over) == {BOX, PHONE}
    slow = replace(UNEQUAL[1], groups=4)
    assert not_to_ask([busy, slow, UNEQUAL[2]], over) == {LAP, PHONE}, "the quick may have more"
    full = replace(busy, groups=8)
    assert not_to_ask([full, slow, UNEQUAL[2]], over) == {PHONE}, "there is nobody else"
