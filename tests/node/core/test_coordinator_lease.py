"""lease_stop: a coordinator dispatches by its own clock, from when it heard its grant."""

from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.core.coordinator_lease import Lease

times = st.floats(min_value=0, max_value=1e6, allow_nan=False)


def test_a_lease_is_held_until_its_end_and_not_at_it() -> None:
    lease = Lease(1, until=3.0)
    assert lease.is_held(2.999)
    assert not lease.is_held(3.0)


def test_a_lease_that_is_over_may_be_renewed_in_its_term() -> None:
    assert Lease(1, until=3.0).renewed(1, lease_s=3.0, now=10.0).is_held(12.9)


def test_a_renewal_of_another_term_changes_nothing() -> None:
    lease = Lease(2, until=3.0)
    assert lease.renewed(1, lease_s=30.0, now=2.0) == lease
    assert lease.renewed(3, lease_s=30.0, now=2.0) == lease


@given(st.lists(st.tuples(times, st.floats(min_value=0, max_value=60))), times)
def test_lease_stop_nothing_is_held_later_than_the_last_renewal_and_its_length(
    renewals: list[tuple[float, float]], asked_at: float
) -> None:
    lease = Lease(1, until=3.0)
    for now, lease_s in sorted(renewals):
        lease = lease.renewed(1, lease_s, now)
    latest = max([3.0, *(now + lease_s for now, lease_s in renewals)])
    assert lease.is_held(asked_at) == (asked_at < latest)
