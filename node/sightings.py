"""What discovery hears on the network, told to the mesh: hints where somebody may be, no proof."""

from __future__ import annotations

import trio

from kowalski.mesh.core.connectivity import Sighted
from kowalski.mesh.discovery import Sighting
from kowalski.mesh.mesh import Mesh


async def follow_sightings(sightings: trio.MemoryReceiveChannel[Sighting], mesh: Mesh) -> None:
    """Tell the mesh of each, until cancelled."""
    async for seen in sightings:
        hear_sighting(seen, mesh)


def hear_sighting(seen: Sighting, mesh: Mesh) -> None:
    """Tell the mesh of one that concerns it; of our own id, that somebody else may go by it."""
    if seen.left or seen.mesh is None:
        return
    if seen.peer == mesh.me:
        mesh.twins.announced(seen.addresses)
    else:
        mesh.sighted(Sighted(seen.peer, seen.addresses, seen.mesh, is_announced=True))
