"""A story with less in it that still breaks the same promise: delta debugging (Zeller, 2002).

First what came after the end goes, then faults are left out, then what was asked, each time as much
as can go; then faults are made shorter; and all over again, until nothing that is left can be left
out: neither a fault nor a request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import TypeVar

from simulations.plan import Plan

T = TypeVar("T")

TRIES_MAX = 400
SHORTEST_S = 0.5
"""Of faults: what is shorter shows nothing more."""

Breaks = Callable[[Plan], bool]
"""Whether a plan still breaks the promise in question."""


def shrink(
    plan: Plan, breaks: Breaks, *, broken_at_s: float = inf, tries_max: int = TRIES_MAX
) -> Plan:
    """The smallest plan found within so many tries. `plan` itself must break the promise."""
    tries = _Tries(breaks, tries_max)
    begun = _until(plan, broken_at_s)
    if begun != plan and tries.ok(begun):
        plan = begun
    while True:
        smaller = _shorter(_without(plan, tries), tries)
        if smaller == plan:
            return plan
        plan = smaller


def _without(plan: Plan, tries: _Tries) -> Plan:
    """Fewer faults, then fewer requests."""
    whole = plan
    plan = replace(
        plan, faults=_fewer(plan.faults, lambda kept: tries.ok(replace(whole, faults=kept)))
    )
    small = plan
    return replace(plan, asks=_fewer(plan.asks, lambda kept: tries.ok(replace(small, asks=kept))))


def _shorter(plan: Plan, tries: _Tries) -> Plan:
    """The same faults, each as short as it can be."""
    for number, fault in enumerate(plan.faults):
        for lasts_s in (SHORTEST_S, fault.lasts_s / 4, fault.lasts_s / 2):
            shorter = replace(fault, lasts_s=lasts_s)
            faults = (*plan.faults[:number], shorter, *plan.faults[number + 1 :])
            if SHORTEST_S <= lasts_s < fault.lasts_s and tries.ok(replace(plan, faults=faults)):
                plan = replace(plan, faults=faults)
                break
    return plan


def _until(plan: Plan, at_s: float) -> Plan:
    """What had begun by then."""
    return replace(
        plan,
        faults=tuple(one for one in plan.faults if one.at_s <= at_s),
        asks=tuple(one for one in plan.asks if one.at_s <= at_s),
    )


class _Tries:
    """Asks each thing once."""

    def __init__(self, breaks: Breaks, left: int) -> None:
        self._breaks = breaks
        self._left = left
        self._known: dict[tuple[object, ...], bool] = {}

    def ok(self, plan: Plan) -> bool:
        """Whether it still breaks; no more once the tries are used up."""
        key = (plan.faults, plan.asks)
        if key in self._known:
            return self._known[key]
        if self._left <= 0:
            return False
        self._left -= 1
        still = self._known[key] = self._breaks(plan)
        return still


def _fewer(items: tuple[T, ...], is_enough: Callable[[tuple[T, ...]], bool]) -> tuple[T, ...]:
    """As few of them as are enough; none of those that are left can be left out by itself.

    Each is tried again after another one went: what needed that one may go as well now.
    """
    if items and is_enough(()):
        return ()
    size = len(items) // 2
    while size >= 1:
        start, before = 0, len(items)
        while start < len(items):
            kept = (*items[:start], *items[start + size :])
            if len(kept) < len(items) and is_enough(kept):
                items = kept
            else:
                start += size
        size = size if size == 1 and len(items) < before else size // 2
    return items
