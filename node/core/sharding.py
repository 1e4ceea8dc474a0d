"""How a model too large for one device is split over several, and whether it comes to life.

exo computes the ways in which it could split a model (previews); here one is chosen and explained,
and the instance that it makes is watched. It has to be: exo says 200 to a command that it then
drops, and "ready" of an instance whose every runner failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Final, Literal

from kowalski.node.backends.exo_state import Instance

Strategy = Literal["auto", "pipeline", "tensor"]

APPEAR_S: Final = 20.0
"""An election of exo stops all commands for 3.2 s, and a busy cluster catches up for longer."""

STILL_S: Final = 300.0
"""Without any change: a download that stands still, a runner that hangs in its loading."""

FAILED_S: Final = 15.0
"""exo starts a failed runner again, five times with pauses of up to 10 s; one that is failed for
so long, or gone, will not come."""


@dataclass(frozen=True, slots=True)
class Way:
    """One preview. `bytes_by_device` is what each would have to hold; empty if not told."""

    sharding: Literal["pipeline", "tensor"]
    link: str
    bytes_by_device: Mapping[str, int]
    devices: int
    why_not: str = ""

    @property
    def uses_rdma(self) -> bool:
        return "jaccl" in self.link.lower()


@dataclass(frozen=True, slots=True)
class Chosen:
    """`way` None: there is none; `why` says why this one, or why none."""

    way: Way | None
    why: str


def choose(
    ways: Sequence[Way],
    strategy: Strategy,
    free_bytes: Mapping[str, int],
    *,
    devices_min: int = 1,
) -> Chosen:
    """The way to split. `auto` takes the fewest devices, for what crosses the network costs most.

    Among those, tensor where the devices have RDMA (each token crosses the link for every layer),
    pipeline elsewhere; and the most memory left on the device that has least.
    """
    refusals: list[str] = []
    fitting: list[Way] = []
    for way in ways:
        if strategy not in ("auto", way.sharding):
            continue
        why_not = way.why_not or _misfit(way, free_bytes, devices_min)
        if why_not:
            refusals.append(f"{way.sharding} over {way.link or 'any link'}: {why_not}")
        else:
            fitting.append(way)
    if not fitting:
        if not ways:
            return Chosen(None, "exo knows no way to split this model")
        return Chosen(None, "; ".join(refusals) or f"exo offers no {strategy} way")
    best = min(fitting, key=lambda way: _order(way, free_bytes))
    return Chosen(best, explain(best, len(fitting) + len(refusals), strategy))


def explain(way: Way, of: int, strategy: Strategy) -> str:
    """For a person."""
    if way.devices == 1:
        how = "whole on one device"
    elif way.sharding == "tensor":
        how = f"every layer split over {way.devices} devices (tensor)"
    else:
        how = f"split by layers over {way.devices} devices (pipeline)"
    largest = max(way.bytes_by_device.values(), default=0)
    takes = f", up to {largest / 2**30:.1f} GiB on one" if largest else ""
    asked = "the fewest devices that hold it" if strategy == "auto" else f"{strategy} was asked for"
    return f"{how}, over {way.link or 'its usual link'}{takes}; of {of} ways, because {asked}"


def _misfit(way: Way, free_bytes: Mapping[str, int], devices_min: int) -> str:
    if way.devices < devices_min:
        return f"{way.devices} devices, {devices_min} were asked for"
    for device, size in way.bytes_by_device.items():
        free = free_bytes.get(device)
        if free is not None and size > free:
            return f"{size / 2**30:.1f} GiB on a device with {free / 2**30:.1f} free"
    return ""


def _order(way: Way, free_bytes: Mapping[str, int]) -> tuple[int, bool, float]:
    suits = (way.sharding == "tensor") == way.uses_rdma
    left = [free_bytes.get(device, size) - size for device, size in way.bytes_by_device.items()]
    return (way.devices, not suits, -min(left, default=0.0))


# --- watching -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Watch:
    """A placement under way. `known` are the instances of the model that were there before."""

    model: str
    known: frozenset[str]
    began_at: float
    instance: str | None = None
    seen: str = ""
    changed_at: float = -inf
    failed_since: float = inf


@dataclass(frozen=True, slots=True)
class Coming:
    """Not yet; `words` and `share` (0 to 1) tell how far it is."""

    words: str
    share: float


@dataclass(frozen=True, slots=True)
class Ready:
    instance: str


@dataclass(frozen=True, slots=True)
class GaveUp:
    """`instance` is to be taken down, if there is one."""

    why: str
    instance: str | None


Verdict = Coming | Ready | GaveUp


def begin(model: str, instances: Sequence[Instance], now: float) -> Watch:
    known = frozenset(one.id for one in instances if one.model == model)
    return Watch(model, known, now, changed_at=now)


def look(
    watch: Watch, instances: Sequence[Instance], now: float, *, downloaded: str = ""
) -> tuple[Watch, Verdict]:
    """What to make of the state as it is now; `downloaded` is any text that tells progress."""
    found = _ours(watch, instances)
    if found is None:
        if watch.instance is not None:
            return watch, GaveUp("exo took the instance down", None)
        if now - watch.began_at >= APPEAR_S:
            why = "exo accepted the command and placed nothing; its master's log says why"
            return watch, GaveUp(why, None)
        return watch, Coming("waiting for exo to place it", 0.0)
    seen = f"{found.explain()} {[runner.progress for runner in found.runners]} {downloaded}"
    watch = replace(watch, instance=found.id)
    if seen != watch.seen:
        watch = replace(watch, seen=seen, changed_at=now)
    if found.readiness == "ready":
        return watch, Ready(found.id)
    if found.readiness == "failed":
        watch = replace(watch, failed_since=min(watch.failed_since, now))
        if now - watch.failed_since >= FAILED_S:
            return watch, GaveUp(f"its runners failed: {found.explain()}", found.id)
    else:
        watch = replace(watch, failed_since=inf)
    if now - watch.changed_at >= STILL_S:
        return watch, GaveUp(f"nothing moved for {STILL_S:.0f} s: {found.explain()}", found.id)
    ready = sum(runner.readiness == "ready" for runner in found.runners)
    loading = sum(runner.progress for runner in found.runners if runner.readiness == "coming")
    words = ", ".join(filter(None, [found.explain(), downloaded]))
    return watch, Coming(words, (ready + loading) / len(found.runners))


def _ours(watch: Watch, instances: Sequence[Instance]) -> Instance | None:
    if watch.instance is not None:
        return next((one for one in instances if one.id == watch.instance), None)
    new = [one for one in instances if one.model == watch.model and one.id not in watch.known]
    return new[0] if new else None
