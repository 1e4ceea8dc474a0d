"""What lets requests through to a peer, and what stops them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kowalski.mesh.core.breaker import Breaker, Params, Passage, Standing, check

PARAMS = Params()
NEW = Breaker("peer code")


def after(breaker: Breaker, outcomes: str, now: float = 0.0) -> Breaker:
    """One request after the other: `+` for a success, `-` for a failure."""
    for outcome in outcomes:
        breaker, passage = breaker.send(now)
        breaker = breaker.succeed(passage) if outcome == "+" else breaker.fail(passage, now)
        check(breaker)
    return breaker


def opened(now: float = 0.0) -> Breaker:
    return after(NEW, "---", now)


def test_three_failures_in_a_row_open_it() -> None:
    assert after(NEW, "--").standing is Standing.CLOSED
    assert after(NEW, "+++++--+--").standing is Standing.CLOSED
    assert after(NEW, "+++++++++---").standing is Standing.OPEN


def test_half_of_the_last_twenty_failing_opens_it_but_not_on_few() -> None:
    assert after(NEW, "-+-+").standing is Standing.CLOSED
    assert after(NEW, "-+-+-").standing is Standing.OPEN
    fine = after(NEW, "+" * 20)
    assert after(fine, "-+" * 9).standing is Standing.CLOSED
    assert after(fine, "-+" * 9 + "-").standing is Standing.OPEN


def test_failures_of_long_ago_do_not_count() -> None:
    scarred = after(NEW, "+-++-+-++-" + "+" * 20)
    assert sum(scarred.has_failed) == 0
    assert after(scarred, "-+-+-").standing is Standing.CLOSED


def test_an_open_one_admits_nobody_until_its_time_is_over_then_exactly_one() -> None:
    breaker = opened()
    assert PARAMS.open_s * 0.75 <= breaker.open_until <= PARAMS.open_s
    assert not breaker.admits(breaker.open_until - 0.001)
    assert breaker.admits(breaker.open_until)
    probing, passage = breaker.send(breaker.open_until)
    assert passage.is_probe
    assert not probing.admits(1e9)
    assert probing.abandon(passage).admits(1e9)


def test_two_good_probes_close_it_and_one_bad_one_opens_it_for_longer() -> None:
    breaker = opened()
    assert after(breaker, "++", breaker.open_until).standing is Standing.CLOSED
    now = breaker.open_until
    again = after(breaker, "+-", now)
    assert again.standing is Standing.OPEN
    assert 2 * 0.75 * PARAMS.open_s <= again.open_until - now <= 2 * PARAMS.open_s


def test_the_time_doubles_up_to_a_minute_and_starts_over_once_it_was_closed() -> None:
    breaker, now = opened(), 0.0
    for _ in range(12):
        now = breaker.open_until
        breaker = after(breaker, "-", now)
    assert 0.75 * PARAMS.open_s_max <= breaker.open_until - now <= PARAMS.open_s_max
    closed = after(breaker, "++", breaker.open_until)
    assert after(closed, "---", 1000.0).open_until - 1000.0 <= PARAMS.open_s


def test_breakers_of_different_peers_do_not_try_again_at_one_instant() -> None:
    until = {after(Breaker(f"peer{number} code"), "---").open_until for number in range(20)}
    assert len(until) == 20


def test_what_was_sent_before_it_opened_tells_nothing_afterwards() -> None:
    breaker, early = NEW.send(0.0)
    breaker = after(breaker, "---")
    assert breaker.succeed(early) == breaker
    probing, _ = breaker.send(breaker.open_until)
    assert probing.succeed(early) == probing
    assert probing.fail(early, 100.0) == probing
    assert probing.abandon(early) == probing


def test_a_success_of_who_ignored_it_is_as_good_as_a_probe_and_a_failure_changes_nothing() -> None:
    breaker, passage = opened().send(0.1)
    assert not passage.is_probe
    assert breaker.fail(passage, 0.2) == breaker
    tried = breaker.succeed(passage)
    assert (tried.standing, tried.successes) == (Standing.HALF_OPEN, 1)
    assert after(tried, "+", 0.3).standing is Standing.CLOSED


class AnyHistory(RuleBasedStateMachine):
    """Requests overlap, end in any order, or never; time goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = NEW
        self.now = 0.0
        self.under_way: list[tuple[Passage, bool]] = []
        """And whether it was let through by the rules."""

    @rule(ignoring=st.booleans())
    def send(self, ignoring: bool) -> None:
        admitted = self.breaker.admits(self.now)
        if admitted or ignoring:
            if admitted and self.breaker.standing is Standing.OPEN:
                assert self.now >= self.breaker.open_until
            self.breaker, passage = self.breaker.send(self.now)
            assert passage.is_probe == (admitted and self.breaker.standing is Standing.HALF_OPEN)
            self.under_way.append((passage, admitted))

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 9), how=st.sampled_from(["succeed", "fail", "abandon"]))
    def end(self, which: int, how: str) -> None:
        passage, _ = self.under_way.pop(which % len(self.under_way))
        match how:
            case "succeed":
                self.breaker = self.breaker.succeed(passage)
            case "fail":
                self.breaker = self.breaker.fail(passage, self.now)
            case _:
                self.breaker = self.breaker.abandon(passage)

    @rule(seconds=st.sampled_from([0.01, 1.0, 2.0, 70.0]))
    def time_goes_on(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def at_most_one_probe_is_under_way(self) -> None:
        check(self.breaker)
        probes = [
            passage
            for passage, _ in self.under_way
            if passage.is_probe and passage.era == self.breaker.era
        ]
        assert len(probes) <= 1
        assert len(probes) == self.breaker.is_probing

    @invariant()
    def it_never_stays_open_for_longer_than_a_minute(self) -> None:
        assert self.breaker.open_until <= self.now + PARAMS.open_s_max


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(st.sampled_from("+-"), max_size=60), st.floats(0, 1e6))
def test_once_the_peer_is_well_two_probes_after_the_opening_close_it(
    history: list[str], now: float
) -> None:
    breaker = after(NEW, "".join(history), now)
    if breaker.standing is Standing.CLOSED:
        return
    healed_at = max(now, breaker.open_until)
    assert after(breaker, "++", healed_at).standing is Standing.CLOSED
