from collections import Counter
from dataclasses import replace

import pytest

from kowalski.mesh.core.placement import (
    UNMEASURED_RTT_S,
    UNMEASURED_TOKENS_PER_S,
    Candidate,
    Kind,
    Need,
    Ranking,
    capacity,
    load,
    rank,
)
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.telemetry import Occupancy

PYTHON = Need("code", language="python")
ANY_MODEL = Need("inference")
FOLDING = Need("folding")


def candidate(name: str = "one", **changes: object) -> Candidate:
    """A peer that can do everything and does nothing."""
    able = Candidate(
        peer=PeerId(f"peer{name}"),
        name=name,
        roles=frozenset({"repl", "infer", "fold"}),
        languages=frozenset({"python"}),
        models=frozenset({"small"}),
        occupancy=dict.fromkeys(("code", "inference", "folding"), Occupancy(slots=4)),
        memory_used=0.5,
        tokens_per_s={"small": 50.0},
        rtt_s=0.001,
        is_routable=True,
        own_in_flight={},
    )
    return replace(able, **changes)  # type: ignore[arg-type]


def names(ranking: Ranking) -> list[str]:
    return [choice.name for choice in ranking.choices]


def busy(kind: Kind, running: int, queued: int = 0, slots: int = 4) -> dict[Kind, Occupancy]:
    idle: dict[Kind, Occupancy] = dict(candidate().occupancy)
    return {**idle, kind: Occupancy(running=running, queued=queued, slots=slots)}


# --- who cannot ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("need", "changes", "why"),
    [
        (PYTHON, {"is_routable": False}, "not reachable now"),
        (PYTHON, {"roles": frozenset({"infer", "fold"})}, "does not offer repl"),
        (PYTHON, {"languages": frozenset({"bash"})}, "no python"),
        (ANY_MODEL, {"roles": frozenset({"repl"})}, "does not offer infer"),
        (ANY_MODEL, {"models": frozenset()}, "no model"),
        (Need("inference", model="large"), {}, "no model large"),
        (FOLDING, {"roles": frozenset({"repl"})}, "does not offer fold"),
        (PYTHON, {"paused": "on battery"}, "takes no work now: on battery"),
        (Need("folding", devices="local"), {}, "only this device is wanted"),
        (Need("folding", devices="network"), {"is_self": True}, "another device is wanted"),
    ],
)
def test_a_peer_that_cannot_is_left_out_and_told_why(
    need: Need, changes: dict[str, object], why: str
) -> None:
    is_self = need.devices == "local"
    able = candidate("able", models=frozenset({"small", "large"}), is_self=is_self)
    assert names(rank(need, [able])) == ["able"]
    ranking = rank(need, [candidate("unable", **changes)])
    assert ranking.best is None
    assert [(no.name, no.why) for no in ranking.rejections] == [("unable", why)]
    assert ranking.explain() == f"unable: {why}"


def test_a_peer_that_was_tried_is_left_out() -> None:
    one, two = candidate("one"), candidate("two")
    ranking = rank(PYTHON, [one, two], excluding=frozenset({one.peer}))
    assert names(ranking) == ["two"]
    assert ranking.explain() == "one: tried already"


def test_an_empty_view_says_so() -> None:
    assert rank(PYTHON, []).explain() == "no peers are known"


def test_a_peer_without_a_name_is_called_by_the_end_of_its_id() -> None:
    ranking = rank(PYTHON, [candidate("", peer=PeerId("AAAA123456"), is_routable=False)])
    assert ranking.explain() == "123456: not reachable now"


def test_a_peer_whose_breaker_is_open_is_left_out_while_most_others_are_well() -> None:
    cut_off = [candidate(f"off{number}", is_admitted=False) for number in range(2)]
    well = [candidate(f"well{number}") for number in range(3)]
    ranking = rank(PYTHON, [*cut_off, *well])
    assert set(names(ranking)) == {"well0", "well1", "well2"}
    assert [(no.name, no.why) for no in ranking.rejections] == [
        ("off0", "it failed too often lately"),
        ("off1", "it failed too often lately"),
    ]


def test_breakers_are_ignored_once_those_of_half_the_able_are_open() -> None:
    cut_off = [candidate(f"off{number}", is_admitted=False) for number in range(2)]
    well = [candidate(f"well{number}") for number in range(2)]
    unable = [candidate(f"unable{number}", roles=frozenset[str]()) for number in range(9)]
    assert len(rank(PYTHON, [*cut_off, *well, *unable]).choices) == 4
    assert names(rank(PYTHON, [cut_off[0]])) == ["off0"]


# --- who can, in which order --------------------------------------------------------------------


def test_code_goes_to_the_less_loaded_and_the_nearer() -> None:
    idle = candidate("idle")
    loaded = candidate("loaded", occupancy=busy("code", running=2))
    far = candidate("far", rtt_s=0.1)
    assert names(rank(PYTHON, [loaded, far, idle])) == ["idle", "far", "loaded"]


def test_load_counts_running_queued_and_our_own_on_their_way() -> None:
    one = candidate(occupancy=busy("code", running=2, queued=1), own_in_flight={"code": 3})
    assert load(one, "code") == (2 + 1 + 3) / 4
    assert load(one, "inference") == 0.0
    assert load(candidate(occupancy=busy("code", running=1, slots=0)), "code") == 1.0


@pytest.mark.parametrize("need", [PYTHON, ANY_MODEL])
def test_our_own_requests_in_flight_send_the_next_one_elsewhere(need: Need) -> None:
    busy_with_ours = candidate("first", own_in_flight={need.kind: 2})
    assert names(rank(need, [busy_with_ours, candidate("second")])) == ["second", "first"]


def test_requests_of_another_kind_in_flight_do_not_count() -> None:
    one = candidate("one", own_in_flight={"folding": 9})
    (choice,) = rank(PYTHON, [one]).choices
    assert choice.score == rank(PYTHON, [candidate("one")]).choices[0].score


def test_inference_goes_to_the_faster_until_it_has_to_share() -> None:
    fast = candidate("fast", tokens_per_s={"small": 90.0})
    slow = candidate("slow", tokens_per_s={"small": 40.0})
    assert names(rank(ANY_MODEL, [slow, fast])) == ["fast", "slow"]
    shared = replace(fast, occupancy=busy("inference", running=8))  # 90 / (1 + 2) = 30
    assert names(rank(ANY_MODEL, [slow, shared])) == ["slow", "fast"]


def test_inference_counts_the_speed_of_the_model_that_is_asked_for() -> None:
    both = frozenset({"small", "large"})
    one = candidate("one", models=both, tokens_per_s={"small": 90.0, "large": 5.0})
    two = candidate("two", models=both, tokens_per_s={"small": 20.0, "large": 20.0})
    assert names(rank(Need("inference", model="large"), [one, two])) == ["two", "one"]
    assert names(rank(Need("inference", model="small"), [one, two])) == ["one", "two"]
    assert names(rank(ANY_MODEL, [one, two])) == ["one", "two"]


def test_a_model_that_served_nothing_yet_counts_as_slow_and_is_still_tried() -> None:
    fresh = candidate("fresh", tokens_per_s={})
    slower = candidate("slower", tokens_per_s={"small": UNMEASURED_TOKENS_PER_S / 2})
    faster = candidate("faster", tokens_per_s={"small": UNMEASURED_TOKENS_PER_S * 2})
    assert names(rank(ANY_MODEL, [slower, fresh, faster])) == ["faster", "fresh", "slower"]


@pytest.mark.parametrize("need", [PYTHON, Need("inference", model="small"), FOLDING])
def test_what_a_peer_says_is_discounted_by_how_slow_it_was_found_to_be(need: Need) -> None:
    slow = candidate("slow", slowness=10.0, rtt_s=0.0005, tokens_per_s={"small": 80.0})
    assert names(rank(need, [slow, candidate("honest")])) == ["honest", "slow"]
    best = rank(need, [slow]).best
    assert best is not None
    assert best.why.endswith(", 10.0 times slower than it says")


def test_slowness_makes_an_overloaded_peer_no_better() -> None:
    full = candidate("full", occupancy=busy("code", running=4, queued=4))
    slow = candidate("slow", occupancy=busy("code", running=4, queued=4), slowness=10.0)
    assert names(rank(PYTHON, [slow, full])) == ["full", "slow"]


def test_capacity_is_slots_times_speed_over_slowness() -> None:
    one = candidate(speed=2.0)
    assert capacity(PYTHON, one) == 4 * 2.0
    assert capacity(PYTHON, replace(one, slowness=4.0)) == 2.0
    assert capacity(Need("inference", model="small"), one) == 4 * 50.0
    nothing_free = replace(one, occupancy=busy("code", running=0, slots=0))
    assert capacity(PYTHON, nothing_free) == 2.0


def test_work_is_named_by_what_takes_alike() -> None:
    assert PYTHON.work == "code python"
    assert Need("inference", model="small").work == "inference small"
    assert ANY_MODEL.work == "inference *"
    assert FOLDING.work == "folding"


def test_folding_goes_to_the_nearest() -> None:
    near, far = candidate("near", rtt_s=0.001), candidate("far", rtt_s=0.02)
    unmeasured = candidate("unmeasured", rtt_s=None)
    assert names(rank(FOLDING, [far, unmeasured, near])) == ["near", "far", "unmeasured"]
    assert UNMEASURED_RTT_S > 0.02


def test_the_local_node_wins_only_what_it_is_better_at() -> None:
    here = candidate("here", rtt_s=0.0)
    assert names(rank(PYTHON, [candidate("there", rtt_s=0.001), here]))[0] == "here"
    overloaded = replace(here, occupancy=busy("code", running=4))
    assert names(rank(PYTHON, [candidate("there", rtt_s=0.001), overloaded]))[0] == "there"


def test_equals_are_ordered_by_a_hash_so_that_no_name_is_favoured() -> None:
    alike = [candidate(f"{number:03}") for number in range(50)]
    ranking = names(rank(PYTHON, alike))
    assert ranking == names(rank(PYTHON, reversed(alike)))
    assert ranking != sorted(ranking)
    firsts = Counter(
        rank(
            Need("code", language=language),
            [replace(one, languages=frozenset({language})) for one in alike[:4]],
        )
        .choices[0]
        .name
        for language in map(str, range(200))
    )
    assert set(firsts) == {"000", "001", "002", "003"}


def test_differences_below_a_millionth_are_ties() -> None:
    one, two = candidate("one", rtt_s=0.001), candidate("two", rtt_s=0.001 + 1e-9)
    swapped = replace(one, rtt_s=two.rtt_s), replace(two, rtt_s=one.rtt_s)
    assert names(rank(PYTHON, [one, two])) == names(rank(PYTHON, swapped))


@pytest.mark.parametrize(
    ("need", "words"),
    [
        (PYTHON, "score 0.696: load 0.50, round trip 1.0 ms"),
        (ANY_MODEL, "score 0.500: 50 tokens/s, load 0.00, memory 50% used"),
        (FOLDING, "score 0.909: round trip 1.0 ms"),
    ],
)
def test_a_choice_says_what_it_was_made_from(need: Need, words: str) -> None:
    best = rank(need, [candidate(occupancy=busy("code", running=2))]).best
    assert best is not None
    assert best.why == words


# --- what is loaded -----------------------------------------------------------------------------

SMALL = Need("inference", model="small")
WARM, COLD = frozenset({"small"}), frozenset[str]()


def test_a_peer_that_has_the_model_loaded_comes_before_any_that_has_not() -> None:
    slow = candidate("slow", warm=WARM, tokens_per_s={"small": 2.0}, memory_used=0.9)
    fast = candidate("fast", warm=COLD, tokens_per_s={"small": 99.0}, memory_used=0.0)
    ranking = rank(SMALL, [fast, slow])
    assert names(ranking) == ["slow", "fast"]
    assert ranking.choices[1].why.endswith("not loaded there")


def test_one_that_is_full_is_no_better_for_having_it_loaded() -> None:
    full = candidate("full", warm=WARM, occupancy=busy("inference", 4))
    idle = candidate("idle", warm=COLD)
    assert names(rank(SMALL, [full, idle])) == ["idle", "full"]
    sent = candidate("sent", warm=WARM, own_in_flight={"inference": 4})
    assert names(rank(SMALL, [sent, idle])) == ["idle", "sent"]


def test_a_peer_that_does_not_tell_what_it_has_loaded_is_believed() -> None:
    assert all(one.is_ready for one in rank(SMALL, [candidate()]).choices)


def test_another_spelling_of_what_is_loaded_will_do() -> None:
    spelled = candidate(
        "exo",
        models=frozenset({"mlx-community/Llama-3.2-3B-Instruct-4bit"}),
        warm=frozenset({"mlx-community/Llama-3.2-3B-Instruct-4bit"}),
    )
    ranking = rank(Need("inference", model="llama3.2:3b"), [spelled])
    assert [one.is_ready for one in ranking.choices] == [True]


def test_for_code_and_folding_nothing_has_to_be_loaded() -> None:
    for need in (PYTHON, FOLDING):
        assert all(one.is_ready for one in rank(need, [candidate(warm=COLD)]).choices)
