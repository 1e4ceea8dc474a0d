"""All that is promised, by name, and in which scenarios it can be broken at all.

A fault that never fires and a promise that is never looked at prove nothing: whoever tells stories
is told which, by name.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable

from simulations.checkers.breakers import WATCHED
from simulations.scenarios import Scenario

Applies = Callable[[Scenario], bool]


def _kinds(scenario: Scenario) -> frozenset[str]:
    return frozenset(scenario.faults.kinds) if scenario.faults else frozenset()


def _always(_scenario: Scenario) -> bool:
    return True


def _knows(*kinds: str) -> Applies:
    return lambda scenario: bool(_kinds(scenario) & set(kinds))


def _is_detached(scenario: Scenario) -> bool:
    return scenario.work.detached > 0


def _is_improvised(scenario: Scenario) -> bool:
    return scenario.work.improvised > 0 and scenario.work.direct < 1


def _has_cells(scenario: Scenario) -> bool:
    return scenario.work.direct < 1


def _has_planned_cells(scenario: Scenario) -> bool:
    return _has_cells(scenario) and scenario.work.improvised < 1


def _has_second_thoughts(scenario: Scenario) -> bool:
    return scenario.work.repeated > 0


def _has_planned_calls(scenario: Scenario) -> bool:
    is_planned = scenario.work.direct > 0 or _has_planned_cells(scenario)
    return is_planned and not scenario.may_be_helpless


def _has_watched_breakers(scenario: Scenario) -> bool:
    return bool(_kinds(scenario)) and _kinds(scenario) <= WATCHED


OF_WHOLE_NODES: dict[str, Applies] = {
    "answers_are_right": _always,
    "attempt_budget": _has_planned_cells,
    "breaker_opens": _has_watched_breakers,
    "calls_budget": _has_planned_calls,
    "closed_by_its_leader": _always,
    "durable": _always,
    "fence_monotone": _knows("wrong-term", "jumbles", "freeze", "isolate"),
    "hearsay_is_bounded": _knows("mdns-spoof"),
    "held_is_on_disk": _is_detached,
    "id_idempotent": _has_second_thoughts,
    "incarnation_is_its_own": _always,
    "journal_is_true": _is_improvised,
    "keepers_agree": _is_detached,
    "leader_has_two_votes": _is_detached,
    "lease_stop": _always,
    "membership_monotone": _always,
    "newcomers_are_let_in": _knows("join-flood"),
    "no_bug_is_met": _always,
    "no_ghosts": _always,
    "no_lost_ack": _always,
    "no_node_dies": _always,
    "no_stale_visible": _always,
    "nobody_is_given_up_for_nothing": _always,
    "nothing_is_left_over": _always,
    "nothing_is_sent_too_late": _always,
    "one_coordinator_per_term": _always,
    "one_end": _always,
    "one_leader_per_term": _is_detached,
    "one_probe_half_open": _has_watched_breakers,
    "placed_with_the_able": _always,
    "prefix_chain": _always,
    "retry_budget": _always,
    "session_is_whole": _has_cells,
    "silence_is_noticed": _always,
    "strangers_are_let_go": _knows("slow-loris"),
    "strangers_get_nothing": _knows("forged-sender", "bad-signature", "join-flood"),
    "tasks_are_conserved": _always,
    "telemetry_monotone": _always,
    "telemetry_within_reason": _always,
    "term_is_saved_first": _always,
    "term_monotone": _always,
    "time_left_shrinks": _always,
    "true_addresses_stay": _knows("mdns-spoof"),
    "two_hold_what_counts": _is_detached,
    "unknown_kinds_are_refused": _knows("unknown-kind"),
    "views_converge": _always,
    "visible_once": _always,
    "vote_is_given_once": _is_detached,
    "vote_is_saved_first": _is_detached,
    "what_counts_stays": _is_detached,
    "who_stands_still_is_still": _knows("freeze", "sleep", "slow-disk"),
}
OF_THOUSANDS = (
    "incarnation_is_its_own",
    "membership_monotone",
    "no_ghosts",
    "nobody_is_given_up_for_nothing",
    "nobody_starves",
    "tasks_are_conserved",
    "telemetry_within_budget",
    "views_converge",
)


def promises_of(scenario: Scenario) -> frozenset[str]:
    """Those that a story of this scenario can look at."""
    if scenario.tier == "B":
        return frozenset(OF_THOUSANDS)
    return frozenset(name for name, applies in OF_WHOLE_NODES.items() if applies(scenario))


def unproven(
    told: Iterable[Scenario], fired: Container[str], evaluated: Container[str]
) -> list[str]:
    """Lines about what all these stories have not shown; none where they have shown all."""
    scenarios = list(told)
    faults = frozenset[str]().union(*map(_kinds, scenarios))
    promises = frozenset[str]().union(*map(promises_of, scenarios))
    return [
        f"{words} {len(missing)} of {len(wanted)} {what}: {', '.join(missing)}"
        for words, what, wanted, seen in (
            ("NEVER FIRED:", "faults", faults, fired),
            ("NEVER LOOKED AT:", "promises", promises, evaluated),
        )
        if (missing := sorted(name for name in wanted if name not in seen))
    ]
