"""What is counted of requests over HTTP."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.core.http_counts import MODELS_MAX, OTHER, HttpCounts, Times, Tokens

BOUNDS_S = (0.1, 1.0, 5.0)


@given(st.lists(st.floats(0.0, 10.0)))
def test_each_time_is_in_the_bucket_of_its_bound_and_in_all_above(seconds: list[float]) -> None:
    times = Times(BOUNDS_S)
    for one in seconds:
        times.add(one)
    expected = [(str(bound), sum(one <= bound for one in seconds)) for bound in BOUNDS_S]
    assert times.buckets() == [*expected, ("+Inf", len(seconds))]
    assert times.sum_s == pytest.approx(sum(seconds))


def test_requests_are_told_apart_by_what_they_were_and_their_times_by_route() -> None:
    counts = HttpCounts()
    for method, status in (("GET", 200), ("GET", 200), ("ODD", 405)):
        counts.request_answered("/healthz", method, status, 0.5)
    assert dict(counts.requests()) == {
        ("/healthz", "GET", "200"): 2,
        ("/healthz", OTHER, "405"): 1,
    }
    assert counts.request_s["/healthz"].buckets()[-1] == ("+Inf", 3)


def test_tokens_are_added_up_by_model() -> None:
    counts = HttpCounts()
    counts.call_ended("m", "node-1", "ok", 0.5, Tokens(3, 4))
    counts.call_ended("m", "node-2", "ok", 0.5, Tokens(10, 20))
    counts.call_ended("m", "", "no_peer", 0.5)
    assert counts.tokens == {"m": Tokens(13, 24)}
    assert dict(counts.calls()) == {
        ("m", "node-1", "ok"): 1,
        ("m", "node-2", "ok"): 1,
        ("m", "", "no_peer"): 1,
    }


def test_models_that_clients_make_up_are_counted_together_beyond_a_bound() -> None:
    counts = HttpCounts()
    for number in range(MODELS_MAX + 10):
        counts.call_ended(f"made-up-{number}", "", "no_peer", 0.1, Tokens(1, 1))
    counts.call_ended("made-up-0", "", "no_peer", 0.1)
    found = dict(counts.calls())
    assert len(found) == len(counts.call_s) == len(counts.tokens) == MODELS_MAX + 1
    assert (found[OTHER, "", "no_peer"], found["made-up-0", "", "no_peer"]) == (10, 2)
