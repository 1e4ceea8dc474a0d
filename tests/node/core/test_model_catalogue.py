"""Which server is asked, and which models make room."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.backends.seam import BackendError, ModelInfo
from kowalski.node.core.model_catalogue import (
    Eviction,
    Listing,
    OnDisk,
    averaged,
    choose,
    load_s,
    make_room,
    preference,
    slots,
)


def listing(
    name: str = "m",
    *,
    url: str = "u",
    is_warm: bool = True,
    free: int = 1,
    tokens_per_s: float | None = None,
    capabilities: tuple[str, ...] = (),
) -> Listing:
    model = ModelInfo(name, is_warm=is_warm, slots=2, capabilities=capabilities)
    return Listing(model, "kind", url, 2 - free, tokens_per_s)


def chosen(asked: str, *listings: Listing) -> str:
    return choose(asked, listings).backend_url


def test_warm_comes_before_cold_and_fast_before_slow() -> None:
    slow, fast = (
        listing(url="slow", tokens_per_s=1.0),
        listing(url="fast", tokens_per_s=9.0),
    )
    cold = listing(url="cold", is_warm=False, tokens_per_s=99.0)
    assert chosen("m", cold, slow, fast) == "fast"
    assert [one.backend_url for one in sorted((cold, slow, fast), key=preference)] == [
        "fast",
        "slow",
        "cold",
    ]


def test_one_that_was_never_measured_is_tried() -> None:
    assert chosen("m", listing(url="fast", tokens_per_s=99.0), listing(url="new")) == "new"


def test_a_free_cold_one_comes_before_a_warm_one_that_is_full() -> None:
    full = listing(url="full", free=0)
    assert chosen("m", full, listing(url="cold", is_warm=False)) == "cold"
    with pytest.raises(BackendError) as caught:
        chosen("m", full)
    assert (caught.value.code, caught.value.retry_after_s) == ("overloaded", 1.0)


def test_the_spelling_that_was_asked_for_is_preferred_among_equals() -> None:
    ollama = listing("llama3.2:3b", url="ollama")
    exo = listing("mlx-community/Llama-3.2-3B-Instruct-4bit", url="exo", tokens_per_s=99.0)
    assert chosen("llama3.2:3b", exo, ollama) == "ollama"
    assert chosen("mlx-community/Llama-3.2-3B-Instruct-4bit", exo, ollama) == "exo"
    full = listing("llama3.2:3b", url="ollama", free=0)
    assert chosen("llama3.2:3b", exo, full) == "exo"


@pytest.mark.parametrize("asked", ["", "*"])
def test_any_model_is_one_that_chats(asked: str) -> None:
    embedder = listing("e", url="e", capabilities=("embed",))
    cold = listing("c", url="c", is_warm=False, capabilities=("chat",))
    assert chosen(asked, embedder, cold) == "c"
    with pytest.raises(BackendError, match="no server on this device has any model"):
        chosen(asked, embedder)


def test_vectors_come_from_a_model_that_embeds_or_may() -> None:
    chat = listing("c", url="c", capabilities=("chat",))
    unknown = listing("u", url="u", is_warm=False)
    assert choose("*", [chat, unknown], capability="embed").backend_url == "u"


def test_what_a_server_leaves_out_goes_to_another_or_is_named() -> None:
    def left_out(one: Listing) -> tuple[str, ...]:
        return ("tools",) if one.backend_url == "exo" else ()

    exo, other = listing(url="exo"), listing(url="other", is_warm=False)
    assert choose("m", [exo, other], left_out=left_out).backend_url == "other"
    with pytest.raises(BackendError, match="unsupported: kind with m has no tools"):
        choose("m", [exo], left_out=left_out)


def test_a_server_does_as_much_at_once_as_its_warm_models_do() -> None:
    warm, cold = listing("a"), [listing(str(n), is_warm=False) for n in range(20)]
    assert slots([warm, *cold]) == 2
    assert slots(cold) == 2
    assert slots([warm, listing("b")]) == 4
    assert slots([warm, listing(url="other")]) == 4
    assert slots([]) == 0


def test_a_speed_follows_the_measurements_slowly_and_never_beyond_reason() -> None:
    assert averaged(None, 10.0) == 10.0
    assert averaged(10.0, 20.0) == pytest.approx(13.0)
    assert averaged(None, 1e9) == 100_000.0


def test_a_cold_model_takes_as_long_as_last_time_or_as_its_size_says() -> None:
    cold = listing(is_warm=False)
    large = replace(cold, model=replace(cold.model, size_bytes=5 * 10**9))
    seen = replace(large, load_s=4.0)
    assert load_s([large]) == pytest.approx(12.0)
    assert load_s([large, seen]) == 4.0
    assert load_s([seen, listing()]) == 0.0
    assert load_s([seen, listing(free=0)]) == 4.0
    assert load_s([]) == 0.0


# --- making room --------------------------------------------------------------------------------


def on_disk(name: str, size: int, used: float, *, pulled: bool = True, busy: int = 0) -> OnDisk:
    return OnDisk(name, size, used, pulled, busy)


def test_without_a_limit_nothing_goes() -> None:
    assert make_room(10**12, [on_disk("a", 1, 0)], bytes_max=None, evict="any") == ()


def test_what_was_not_used_for_the_longest_time_goes_first_and_no_more_than_needed() -> None:
    models = [on_disk("new", 40, 9), on_disk("old", 40, 1), on_disk("older", 10, 0)]
    assert make_room(20, models, bytes_max=100, evict="pulled") == ("older",)
    assert make_room(30, models, bytes_max=100, evict="pulled") == ("older", "old")
    assert make_room(10, models, bytes_max=100, evict="pulled") == ()


def test_what_the_owner_pulled_stays_unless_he_says_any() -> None:
    mine = on_disk("mine", 90, 0, pulled=False)
    with pytest.raises(BackendError, match="rejected: 20 bytes do not fit: 10 over"):
        make_room(20, [mine], bytes_max=100, evict="pulled")
    assert make_room(20, [mine], bytes_max=100, evict="any") == ("mine",)
    with pytest.raises(BackendError):
        make_room(20, [on_disk("a", 90, 0)], bytes_max=100, evict="never")


def test_what_answers_just_now_stays() -> None:
    with pytest.raises(BackendError):
        make_room(20, [on_disk("a", 90, 0, busy=1)], bytes_max=100, evict="any")


@given(
    st.integers(0, 200),
    st.lists(
        st.builds(
            OnDisk,
            st.text(max_size=2),
            st.integers(0, 60),
            st.floats(0, 9),
            st.booleans(),
            st.integers(0, 1),
        ),
        max_size=6,
        unique_by=lambda one: one.name,
    ),
    st.integers(0, 200),
    st.sampled_from(["never", "pulled", "any"]),
)
def test_room_is_made_within_the_owners_rules_or_not_at_all(
    needed: int, models: list[OnDisk], limit: int, evict: Eviction
) -> None:
    try:
        going = make_room(needed, models, bytes_max=limit, evict=evict)
    except BackendError:
        return
    gone = [one for one in models if one.name in going]
    assert sum(one.bytes for one in models if one not in gone) + needed <= limit
    assert all(evict != "never" and (evict == "any" or one.is_pulled) for one in gone)
    assert not any(one.in_flight for one in gone)
