"""Who was here a moment ago, and could do it."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from kowalski.mesh.core.placement import Need
from kowalski.mesh.peer_facts import PeerFacts
from kowalski.node.core.lately_here import gone_s, lately_here
from kowalski.node.core.missed import LOST_S
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.telemetry import Language, Model, Profile
from tests.mesh.members import About

PROFILE: Profile = (
    About("worker")
    .profile(0)
    .model_copy(
        update={
            "roles": ("repl", "infer", "fold"),
            "languages": (Language(name="python", version="3.12"),),
            "models": (Model(name="qwen3:8b"),),
        }
    )
)
GONE = PeerFacts(
    peer=PeerId("peer"),
    name="worker",
    is_self=False,
    state="absent",
    is_routable=False,
    why_not="not connected",
    addresses=(),
    roles=PROFILE.roles,
    rtt_s=None,
    age_s=4.0,
    profile=PROFILE,
    hot=PROFILE.hot,
    membership="failed",
)


def test_who_is_gone_without_a_goodbye_was_lately_here() -> None:
    assert [one.age_s for one in lately_here([GONE], "all")] == [4.0]
    assert [one.age_s for one in lately_here([GONE], "network")] == [4.0]


@pytest.mark.parametrize(
    "other",
    [
        replace(GONE, is_self=True),
        replace(GONE, is_routable=True),
        replace(GONE, membership="left"),
        replace(GONE, profile=None),
        replace(GONE, age_s=None),
        replace(GONE, age_s=LOST_S),
    ],
    ids=["ourselves", "here", "said goodbye", "said nothing", "never heard", "long ago"],
)
def test_nobody_else_was(other: PeerFacts) -> None:
    assert lately_here([other], "all") == ()


def test_what_may_not_leave_this_device_waits_for_nobody() -> None:
    assert lately_here([GONE], "local") == ()


@pytest.mark.parametrize(
    ("need", "is_able"),
    [
        (Need("code", language="python"), True),
        (Need("code", language="bash"), False),
        (Need("inference"), True),
        (Need("inference", model="qwen3"), True),
        (Need("inference", model="llama3"), False),
        (Need("folding"), True),
    ],
)
def test_whoever_could_do_it_counts_and_no_other(need: Need, *, is_able: bool) -> None:
    assert gone_s([GONE, replace(GONE, age_s=9.0)], need) == (4.0 if is_able else inf)


def test_a_certificate_that_forbids_it_is_no_ability() -> None:
    mere = replace(GONE, profile=PROFILE.model_copy(update={"roles": ("coordinate",)}))
    assert gone_s([mere], Need("code", language="python")) == inf
