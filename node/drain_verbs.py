"""The verbs of a node that is about to leave: drain and undrain."""

from __future__ import annotations

from collections.abc import Mapping

import trio

from kowalski.node import control_messages as asked
from kowalski.node.control import Emit, Verb
from kowalski.node.services.draining import Draining, Left

Reply = dict[str, object]


class DrainVerbs:
    def __init__(self, draining: Draining) -> None:
        self._draining = draining

    def offered(self) -> Mapping[str, Verb]:
        return {"drain": self.drain, "undrain": self.undrain}

    async def drain(self, raw: Reply, emit: Emit) -> Reply:
        """Hand over, and tell what is left until nothing is, or the asker's time is over."""
        request = asked.parse(asked.DrainRequest, raw)

        async def tell(left: Left) -> None:
            await emit({"kind": "left", **_numbers(left)})

        await self._draining.begin()
        with trio.move_on_after(request.timeout_s):
            await self._draining.until_empty(tell)
        return self._state()

    async def undrain(self, raw: Reply, _emit: Emit) -> Reply:
        asked.parse(asked.UndrainRequest, raw)
        await self._draining.end()
        return self._state()

    def _state(self) -> Reply:
        left = self._draining.left
        is_empty = self._draining.is_on and left.is_nothing
        return {"draining": self._draining.is_on, "is_empty": is_empty, "left": _numbers(left)}


def _numbers(left: Left) -> Reply:
    return {"tasks": left.tasks, "jobs": left.jobs, "sessions": left.sessions}
