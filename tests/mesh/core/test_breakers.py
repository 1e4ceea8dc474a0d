"""The breakers of all peers: apart, counted as they open, and new for who comes back."""

from __future__ import annotations

from kowalski.mesh.core.breaker import PARAMS, Standing
from kowalski.mesh.core.breakers import Breakers, Key
from tests.mesh.members import peer_of

A, B = peer_of("A"), peer_of("B")
CODE: Key = (A, "code")
ASKED: Key = (A, "inference")


def failing(breakers: Breakers, key: Key, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        breakers.fail(key, breakers.send(key, now), now)


def test_what_fails_at_one_kind_of_work_is_still_sent_the_other() -> None:
    breakers = Breakers(B)
    failing(breakers, CODE, PARAMS.failures_in_a_row)
    assert not breakers.admits(CODE, 0.0)
    assert breakers.admits(ASKED, 0.0)
    assert dict(breakers) == {CODE: Standing.OPEN}


def test_each_opening_is_counted_and_failures_of_what_is_open_are_not() -> None:
    breakers = Breakers(B)
    failing(breakers, CODE, 2 * PARAMS.failures_in_a_row)
    assert breakers.opened == {"code": 1}
    probe = breakers.send(CODE, PARAMS.open_s)
    assert breakers.is_probe(CODE, probe)
    breakers.fail(CODE, probe, PARAMS.open_s)
    assert breakers.opened == {"code": 2}
    assert not breakers.is_probe(CODE, probe), "it has said what it was to say"


def test_who_comes_back_begins_anew_but_what_was_counted_stays() -> None:
    breakers = Breakers(B)
    failing(breakers, CODE, PARAMS.failures_in_a_row)
    breakers.forget(A)
    assert breakers.admits(CODE, 0.0)
    assert dict(breakers) == {}
    assert breakers.opened == {"code": 1}


def test_what_succeeds_closes_it_and_what_is_given_up_lets_another_try() -> None:
    breakers = Breakers(B)
    failing(breakers, CODE, PARAMS.failures_in_a_row)
    now = PARAMS.open_s_max
    breakers.abandon(CODE, breakers.send(CODE, now))
    for _ in range(PARAMS.successes_to_close):
        assert breakers.admits(CODE, now)
        breakers.succeed(CODE, breakers.send(CODE, now))
    assert dict(breakers) == {CODE: Standing.CLOSED}
