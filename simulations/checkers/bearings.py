"""Where nodes think that the others are, whatever somebody announces on the network."""

from __future__ import annotations

from simulations.world import World

PEERS_MAX = 600
"""Whom a node keeps in mind: 256 that were announced, and the peers and guests of a small mesh."""
ADDRESSES_MAX = 16
DIALS_MAX = 16
"""Under way at a time, to where nobody is."""


def look_at_bearings(world: World) -> None:
    """`true_addresses_stay` and `hearsay_is_bounded`, as it is now at all nodes that are up."""
    for place in world.places:
        if place.node is None:
            continue
        mesh, who = place.node.mesh, f"node {place.number}"
        for other in world.places:
            if other is place:
                continue
            true, known = f"/memory/{other.identity.peer}", mesh.addresses_of(other.identity.peer)
            world.witness.check(
                "true_addresses_stay",
                holds=true in known,
                words=f"{who} looks for node {other.number} at {known}",
            )
        peers = world.as_node(place.number, lambda node: node.mesh.facts())
        most = max(len(facts.addresses) for facts in peers)
        dials = place.voice.misled
        world.witness.check(
            "hearsay_is_bounded",
            holds=len(peers) <= PEERS_MAX and most <= ADDRESSES_MAX and dials <= DIALS_MAX,
            words=f"{who} knows {len(peers)} peers, one at {most} addresses; {dials} dials in vain",
        )
