"""Whether this device takes work of others now: its owner's limits, and standing by."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
import trio

from kowalski.mesh.core.placement import ROLE_OF, Kind
from kowalski.mesh.mesh import Mesh
from kowalski.node.core import activation
from kowalski.node.core.activation import STANDBY, Activation
from kowalski.node.core.availability import Availability
from kowalski.node.services.gate import Gate

log = structlog.get_logger(__name__)

LOOK_S = 1.0


def local_minute(unix_s: float) -> int:
    """Of the day, as the clock on the owner's wall shows it."""
    at = time.localtime(unix_s)
    return at.tm_hour * 60 + at.tm_min


@dataclass(frozen=True, slots=True)
class Watched:
    """What is looked at: the wall clock, and whether the device runs on its battery."""

    unix_clock: Callable[[], float]
    is_on_battery: Callable[[], bool]


async def keep_availability(
    gate: Gate, mesh: Mesh, availability: Availability, watched: Watched
) -> None:
    """Pause the gate when its owner's limits say so, or while nobody needs us; until cancelled."""
    state = Activation(is_active=not availability.stands_by)
    while True:
        minute = local_minute(watched.unix_clock())
        why = availability.why_paused(minute, on_battery=watched.is_on_battery())
        if availability.stands_by:
            candidates = mesh.candidates()
            roles = next((one.roles for one in candidates if one.is_self), frozenset[str]())
            kinds: list[Kind] = [kind for kind in _KINDS if ROLE_OF[kind] in roles]
            busiest = activation.busiest_load(candidates, kinds)
            before = activation.standbys_before(mesh.me, candidates)
            was_active = state.is_active
            state = activation.look(state, busiest, before, trio.current_time())
            if state.is_active != was_active:
                log.info("activated" if state.is_active else "stands-by", load=busiest)
        why = why or ("" if state.is_active else STANDBY)
        if why != gate.paused:
            log.info("paused" if why else "takes-work", why=why)
            gate.pause(why)
        await trio.sleep(LOOK_S)


_KINDS: tuple[Kind, ...] = ("code", "inference", "folding")
