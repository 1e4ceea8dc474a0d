"""A story with less in it that still breaks the same promise: delta debugging (Zeller, 2002).

First what came after the end goes, then faults are left out, then what was asked, each time as much
as can go; then faults are made shorter. What is left is what mattered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import TypeVar

from simulations.plan import Plan

T = TypeVar("T")

TRIES_MAX = 400

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
    plan = replace(
        plan,
        faults=_fewer(plan.faults, lambda kept: tries.ok(replace(plan, faults=kept))),
    )
    small = plan
    asks = _fewer(small.asks, lambda kept: tries.ok(replace(small, asks=kept)))
    plan = replace(small, asks=asks)
    for number, fault in enumerate(plan.faults):
        for lasts_s in (0.5, fault.lasts_s / 4, fault.lasts_s / 2):
            shorter = replace(fault, lasts_s=lasts_s)
            faults = (*plan.faults[:number], shorter, *plan.faults[number + 1 :])
            if lasts_s < fault.lasts_s and tries.ok(replace(plan, faults=faults)):
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
    def __init__(self, breaks: Breaks, left: int) -> None:
        self._breaks = breaks
        self._left = left

    def ok(self, plan: Plan) -> bool:
        """Whether it still breaks; no more once the tries are used up."""
        if self._left <= 0:
            return False
        self._left -= 1
        return self._breaks(plan)


def _fewer(items: tuple[T, ...], is_enough: Callable[[tuple[T, ...]], bool]) -> tuple[T, ...]:
    """As few of them as are enough; with none of what is left could it be done without."""
    if items and is_enough(()):
        return ()
    size = len(items) // 2
    while size >= 1:
        start = 0
        while start < len(items):
            kept = (*items[:start], *items[start + size :])
            if len(kept) < len(items) and is_enough(kept):
                items = kept
            else:
                start += size
        size //= 2
    return items
