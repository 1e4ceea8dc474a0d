"""The HTTP room of a node in a world, asked without a wire."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kowalski.node.control import Verb
from kowalski.node.http.room import HttpRoom, Place, Rooms
from simulations.world import UNIX_EPOCH_S, World
from tests.node.http.exchanges import Recorder, exchange


def open_room(
    world: World,
    scratch: Path,
    number: int = 0,
    *,
    host: str = "127.0.0.1",
    verbs: Mapping[str, Verb] | None = None,
    **place: object,
) -> HttpRoom:
    """The room that node `number` would serve; with `verbs` besides and in place of its own."""
    node = world[number]
    rooms = Rooms(
        node.mesh,
        node.work,
        node.store,
        node.submitter,
        {**world.verbs(number), **(verbs or {})},
        lambda: UNIX_EPOCH_S,
    )
    where = Place(host, 0, scratch / "http_token", scratch, **place)  # type: ignore[arg-type]
    return HttpRoom(where, rooms)


async def ask(
    room: HttpRoom,
    method: str,
    target: str,
    body: object = None,
    *,
    client: str = "127.0.0.1",
    **headers: str,
) -> Recorder:
    """One exchange, to its end."""
    asked, told = exchange(method, target, body, client=client, **headers)
    await room.handle(asked)
    return told
