"""Whom the owner lets change models."""

from __future__ import annotations

import pytest

from kowalski.node.core.model_policy import ModelRules, WhoMayChange


@pytest.mark.parametrize(
    ("who", "is_self", "roles", "is_allowed"),
    [
        ("nobody", True, ("admin",), False),
        ("owner", True, (), True),
        ("owner", False, ("admin",), True),
        ("owner", False, ("submit", "coordinate"), False),
        ("members", False, ("submit",), True),
    ],
)
def test_the_owner_says_who(
    who: WhoMayChange, is_self: bool, roles: tuple[str, ...], is_allowed: bool
) -> None:
    why_not = ModelRules(who).why_not(is_self=is_self, roles=roles)
    assert (why_not == "") is is_allowed
    assert is_allowed or "owner" in why_not


def test_a_stranger_to_the_settings_is_careful() -> None:
    assert ModelRules() == ModelRules("owner", bytes_max=None, evict="never")


@pytest.mark.parametrize("who", ["nobody", "owner", "members"])
def test_what_nobody_wished_for_by_name_is_fetched_only_where_any_member_may_have_it(
    who: WhoMayChange,
) -> None:
    why_not = ModelRules(who).why_not(is_self=True, roles=("admin",), is_on_demand=True)
    assert (why_not == "") is (who == "members")
