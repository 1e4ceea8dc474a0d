"""What must hold of a member of a detached task's group, and whose turn it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kowalski.node.core import detached_state as ds
from kowalski.node.core.invariants import InvariantError
from kowalski.rlm.journal import GENESIS
from tests.node.core.detached_world import GROUP

MEMBER = ds.Member(GROUP[0], GROUP, marks=(GENESIS, GENESIS))


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("no_lost_ack", replace(MEMBER, committed=3)),
        ("term_monotone", replace(MEMBER, confirmed=1)),
        ("single_authority", replace(MEMBER, group=GROUP[:2])),
        ("visible_once", replace(MEMBER, ends_at=1)),
        ("detached_majority", replace(MEMBER, role="leader")),
    ],
)
def test_what_does_not_hold_is_called_by_its_name(name: str, broken: ds.Member) -> None:
    ds.check(MEMBER)
    with pytest.raises(InvariantError, match=name):
        ds.check(broken)


def test_the_members_stand_one_after_the_other_and_the_first_changes_with_the_term() -> None:
    for term in range(4):
        members = [ds.Member(one, GROUP, term=term) for one in GROUP]
        assert sorted(one.rank for one in members) == [0, 1, 2]
        assert members[-term % 3].rank == 0
        assert len({one.timeout_s for one in members}) == 3
