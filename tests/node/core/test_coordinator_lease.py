"""lease_stop: a coordinator dispatches by its own clock, from when it heard its grant.

Without a lease it goes on only for a submitter that is gone, and only if others vouch for it.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kowalski.node.core import coordinator_lease as cl
from kowalski.node.core.coordinator_lease import Lease, Patience, Phase
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.task import SubmitterGone

STANDBYS = (PeerId("standby1"), PeerId("standby2"))
LEASE = Lease(2, until=3.0, heard_at=0.0, standbys=STANDBYS)
GONE = cl.submitter_seen(LEASE, is_here=False)
PATIENCE = LEASE.patience
HOLDS_AT = 3.0 + PATIENCE.hold_after_s

times = st.floats(min_value=0, max_value=1e6, allow_nan=False)


def test_a_lease_is_held_until_its_end_and_not_at_it() -> None:
    assert LEASE.is_held(2.999)
    assert not LEASE.is_held(3.0)
    assert [LEASE.phase(at) for at in (2.999, 3.0)] == ["held", "lapsed"]


def test_a_lease_that_is_over_may_be_renewed_in_its_term() -> None:
    assert cl.renewed(LEASE, 2, lease_s=3.0, now=10.0).is_held(12.9)


@pytest.mark.parametrize("term", [1, 3])
def test_a_renewal_of_another_term_changes_nothing(term: int) -> None:
    assert cl.renewed(LEASE, term, lease_s=30.0, now=2.0) == LEASE


def test_a_grant_of_a_higher_term_is_a_new_lease_with_new_standbys_and_no_witnesses() -> None:
    old = cl.witnessed(replace(LEASE, until=100.0), STANDBYS[0], 1.0)
    new = cl.granted(old, 3, 3.0, STANDBYS[:1], now=10.0)
    assert (new.term, new.until, new.standbys, new.witnesses) == (3, 13.0, STANDBYS[:1], {})


@given(st.lists(st.tuples(times, st.floats(min_value=0, max_value=60))), times)
def test_lease_stop_nothing_is_held_later_than_the_last_renewal_and_its_length(
    renewals: list[tuple[float, float]], asked_at: float
) -> None:
    lease = LEASE
    for now, lease_s in sorted(renewals):
        lease = cl.renewed(lease, 2, lease_s, now)
    latest = max([3.0, *(now + lease_s for now, lease_s in renewals)])
    assert lease.is_held(asked_at) == (asked_at < latest)
    assert lease.may_dispatch(asked_at) == (asked_at < latest), "its submitter is here"


# --- a submitter that is gone -------------------------------------------------------------------


def test_it_goes_on_without_a_lease_once_a_standby_vouches_for_it_and_not_before_its_time() -> None:
    assert GONE.phase(HOLDS_AT) == "lapsed", "nobody has said anything"
    vouched = cl.witnessed(GONE, STANDBYS[1], HOLDS_AT)
    assert vouched.phase(HOLDS_AT - 0.001) == "lapsed"
    assert vouched.phase(HOLDS_AT) == "holding"
    assert vouched.may_dispatch(HOLDS_AT)


def test_a_witness_counts_for_a_while_and_has_to_say_it_again() -> None:
    vouched = cl.witnessed(GONE, STANDBYS[0], 20.0)
    assert vouched.phase(20.0 + PATIENCE.witness_s - 0.001) == "holding"
    assert vouched.phase(20.0 + PATIENCE.witness_s) == "lapsed"
    again = cl.witnessed(vouched, STANDBYS[0], 26.0)
    assert again.phase(26.0) == "holding"


def test_who_is_no_standby_is_no_witness() -> None:
    assert cl.witnessed(GONE, PeerId("somebody"), 20.0) == GONE


def test_where_nobody_stands_by_nobody_else_can_lead_and_it_goes_on() -> None:
    alone = replace(GONE, standbys=())
    assert alone.phase(HOLDS_AT) == "holding"
    assert alone.phase(1e9) == "holding"


def test_a_submitter_that_is_here_and_silent_is_waited_for_without_working() -> None:
    vouched = cl.witnessed(LEASE, STANDBYS[0], 20.0)
    assert vouched.phase(20.0) == "lapsed"
    assert vouched.phase(PATIENCE.silent_s) == "abandoned"


def test_one_that_says_abort_is_dropped_soon_after_its_lease() -> None:
    lease = replace(GONE, policy="abort")
    vouched = cl.witnessed(lease, STANDBYS[0], 4.0)
    assert vouched.phase(3.0) == "lapsed"
    assert vouched.phase(3.0 + PATIENCE.abort_after_s) == "abandoned"


def test_one_that_nobody_vouches_for_is_dropped_in_the_end() -> None:
    assert GONE.phase(PATIENCE.gone_s - 0.001) == "lapsed"
    assert GONE.phase(PATIENCE.gone_s) == "abandoned"


def test_a_submitter_that_comes_back_ends_the_holding_until_it_has_spoken() -> None:
    holding = cl.witnessed(GONE, STANDBYS[0], 20.0)
    back = cl.submitter_seen(holding, is_here=True)
    assert back.phase(20.0) == "lapsed"
    assert cl.granted(back, 3, 3.0, STANDBYS, 21.0).phase(21.0) == "held"


# --- histories ----------------------------------------------------------------------------------

ALLOWED: dict[SubmitterGone, set[Phase]] = {
    "hold": {"held", "lapsed", "holding", "abandoned"},
    "abort": {"held", "lapsed", "abandoned"},
}


class Leases(RuleBasedStateMachine):
    """Against what was heard when, kept as plain lists."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.lease = Lease(1, until=3.0, heard_at=0.0, standbys=STANDBYS)
        self.is_here = True
        self.witnesses: list[float] = []

    @rule(seconds=st.sampled_from([0.0, 0.5, 3.0, 5.0, 60.0, 700.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def wait_until_something_may_change(self) -> None:
        at = self.lease.wake_at(self.now)
        before = self.lease.phase(self.now)
        if at != inf:
            between = (self.now + at) / 2
            assert self.lease.phase(between) == before, "nothing changes in between"
            self.now = at

    @rule(term=st.integers(1, 3))
    def renew(self, term: int) -> None:
        self.lease = cl.renewed(self.lease, term, 3.0, self.now)

    @rule()
    def grant(self) -> None:
        self.lease = cl.granted(self.lease, self.lease.term + 1, 3.0, STANDBYS, self.now)
        self.witnesses = []

    @rule(policy=st.sampled_from(["hold", "abort"]))
    def choose(self, policy: SubmitterGone) -> None:
        self.lease = replace(self.lease, policy=policy)

    @rule(is_here=st.booleans())
    def see(self, is_here: bool) -> None:
        self.is_here = is_here
        self.lease = cl.submitter_seen(self.lease, is_here=is_here)

    @rule(standby=st.sampled_from(STANDBYS))
    def vouch(self, standby: PeerId) -> None:
        self.lease = cl.witnessed(self.lease, standby, self.now)
        self.witnesses.append(self.now)

    @invariant()
    def lease_stop(self) -> None:
        phase = self.lease.phase(self.now)
        assert phase in ALLOWED[self.lease.policy]
        if self.lease.may_dispatch(self.now) and self.now >= self.lease.until:
            assert not self.is_here
            assert self.lease.policy == "hold"
            assert self.now >= self.lease.until + Patience().hold_after_s
            assert any(self.now < at + Patience().witness_s for at in self.witnesses)


TestLeases = Leases.TestCase
