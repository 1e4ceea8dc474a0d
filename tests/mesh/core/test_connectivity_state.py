"""What must hold of the peers, looked at again only where it may have changed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kowalski.mesh.core.connectivity_state import (
    Connectivity,
    Peer,
    Standing,
    check,
    check_news,
)
from kowalski.protocol.ids import Address, MeshId, PeerId

ME, A, B = (PeerId(name * 8) for name in "MAB")
HERE = Address("/memory/here")
WELL = Peer(A, Standing.MEMBER, (HERE,))
WRONG = Peer(A, Standing.MEMBER, (HERE,), act_at=5.0)
"""It is probed, and yet it waits to be asked."""


def knowing(*peers: Peer) -> Connectivity:
    return Connectivity(ME, MeshId("m" * 32), peers={peer.id: peer for peer in peers})


def test_what_has_held_is_the_same_for_a_check_that_knows_of_it() -> None:
    state = knowing(WELL, Peer(B))
    check(state)
    held = check_news(state, None)
    assert check_news(state, held) == held == state.peers


def test_a_peer_that_has_changed_is_looked_at_again() -> None:
    held = check_news(knowing(WELL, Peer(B)), None)
    with pytest.raises(AssertionError, match="it is probed"):
        check_news(knowing(WRONG, Peer(B)), held)


def test_a_table_that_was_altered_in_place_is_found() -> None:
    state = knowing(WELL, Peer(B))
    held = check_news(state, None)
    state.peers[A] = WRONG
    with pytest.raises(AssertionError, match="it is probed"):
        check_news(state, held)


def test_a_member_waits_to_be_asked_where_the_mesh_has_given_it_up_alone() -> None:
    check(knowing(replace(WRONG, is_given_up=True)))
    with pytest.raises(AssertionError, match="somebody is at it"):
        check(knowing(replace(WRONG, is_given_up=True, standing=Standing.ASKING)))


@pytest.mark.parametrize("name", [ME, B], ids=["ourselves", "another"])
def test_a_peer_that_held_holds_under_its_own_name_alone(name: PeerId) -> None:
    held = check_news(knowing(WELL, Peer(B)), None)
    state = replace(knowing(WELL), peers={name: WELL})
    with pytest.raises(AssertionError):
        check_news(state, held)


def test_members_of_whom_too_much_was_missed_are_silent_and_nobody_else() -> None:
    lost = replace(WELL, misses=2)
    doubted = replace(WELL, id=B, misses=1, is_doubted=True)
    assert knowing(lost, doubted).silent == {A, B}
    assert knowing(replace(WELL, misses=1)).silent == frozenset()
    assert knowing(replace(lost, standing=Standing.CONNECTED)).silent == frozenset()
