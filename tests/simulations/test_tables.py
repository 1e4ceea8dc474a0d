"""Tables that share their rows behave as tables of their own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core import membership
from kowalski.mesh.core.membership import Claim, Member
from kowalski.protocol.ids import PeerId
from simulations.tables import SharedRows

PEERS = [PeerId(f"{number}") for number in range(6)]
ME = PEERS[0]
COMMON = dict.fromkeys(PEERS[:4], Member("alive", 1, 0.0))

claims = st.builds(
    Claim,
    peer=st.sampled_from(PEERS),
    state=st.sampled_from(("alive", "suspect", "failed", "left")),
    incarnation=st.integers(1, 3),
)


@given(st.lists(st.lists(claims, max_size=4), max_size=6))
def test_what_is_learnt_is_the_same_as_in_a_table_of_its_own(told: list[list[Claim]]) -> None:
    own = {peer: member for peer, member in COMMON.items() if peer != ME}
    shared = SharedRows(COMMON, ME)
    plain = membership.Membership(ME, 1, members=own, living=3)
    common = membership.Membership(ME, 1, members=shared, living=3)
    for now, some in enumerate(told):
        plain, news = membership.learn(plain, some, float(now), members_max=100)
        common, same = membership.learn(common, some, float(now), members_max=100)
        assert same == news
        assert (common.living, common.digest) == (plain.living, plain.digest)
        assert dict(common.members.items()) == plain.members
        assert set(common.members) == set(plain.members)
        assert len(common.members) == len(plain.members)
        assert all((peer in common.members) == (peer in plain.members) for peer in PEERS)
        assert [common.members.get(peer) for peer in PEERS] == [plain.members.get(p) for p in PEERS]
    assert dict(shared.items()) == own, "what was shared before has not changed"


def test_only_what_differs_is_kept() -> None:
    shared = SharedRows(COMMON, ME)
    table, _ = membership.learn(
        membership.Membership(ME, 1, members=shared, living=3),
        [Claim(PEERS[1], "failed", 1)],
        1.0,
        members_max=100,
    )
    assert isinstance(table.members, SharedRows)
    assert table.members.differences == 1
    assert ME not in shared
