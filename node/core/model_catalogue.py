"""Which of this device's servers a model call goes to, and which models make room for a new one.

Decides; the shell is `backends.catalogue`. Full means no: queueing is not done here, and choosing a
peer is placement's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from kowalski.mesh.core import model_names
from kowalski.node.backends.seam import BackendError, ModelInfo

RETRY_AFTER_S: Final = 1.0

LOAD_S: Final = 2.0
DISK_BYTES_PER_S: Final = 500e6
"""How fast a model is read that was never loaded here: the disk of a laptop."""

RATE_WEIGHT: Final = 0.3
"""Of the newest measurement of a speed."""

TOKENS_PER_S_MAX: Final = 100_000.0
"""More is a clock too coarse; peers take such a rate for a lie."""

Eviction = Literal["never", "pulled", "any"]
"""Which models may be deleted to make room for a pull: none; those that this node pulled, the
longest unused first; or any."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One model on one server. Speeds are measured, None until it has answered.

    `load_s` is how long it took when it was loaded last, None until that was seen.
    """

    model: ModelInfo
    backend_name: str
    backend_url: str
    in_flight: int
    tokens_per_s: float | None
    prompt_tokens_per_s: float | None = None
    load_s: float | None = None

    @property
    def free_slots(self) -> int:
        return max(0, self.model.slots - self.in_flight)


def preference(listing: Listing) -> tuple[bool, bool, float, float, str, str]:
    """Sorts the preferred first: warm, free, fast, idle; one never measured deserves a try."""
    rate = listing.tokens_per_s
    return (
        not listing.model.is_warm,
        not listing.free_slots,
        -math.inf if rate is None else -rate,
        listing.in_flight / listing.model.slots,
        listing.model.name,
        listing.backend_url,
    )


def choose(
    asked: str,
    listings: Iterable[Listing],
    *,
    capability: Literal["chat", "embed"] = "chat",
    left_out: Callable[[Listing], tuple[str, ...]] = lambda _: (),
) -> Listing:
    """The server to ask; `asked` empty or `*` leaves the model to us.

    A free cold one comes before a warm one that is full: whoever asked a full one would be refused.

    Raises:
        BackendError: `model_missing`, no server here has such a model; `unsupported`, those that
            have it would leave something out; `overloaded`, the others are full.
    """
    able = having(asked, (one for one in listings if one.model.can(capability)))
    missing = {id(one): left_out(one) for one in able}
    willing = [one for one in able if not missing[id(one)]]
    if not willing:
        first = able[0]
        words = ", ".join(missing[id(first)])
        detail = f"{first.backend_name} with {first.model.name} has no {words}"
        raise BackendError("unsupported", detail)
    free = [one for one in willing if one.free_slots]
    if not free:
        raise BackendError("overloaded", "all its slots are taken", RETRY_AFTER_S)
    return free[0]


def having(asked: str, listings: Iterable[Listing]) -> list[Listing]:
    """Those that have the model, the preferred first; `asked` as in `choose`.

    Raises:
        BackendError: `model_missing`, none has.
    """
    is_any = asked in ("", model_names.ANY_MODEL)
    able = list(listings)
    if not is_any:
        names = model_names.resolve(asked, {one.model.name for one in able})
        able = [one for one in able if one.model.name in names]
    if not able:
        what = "any model" if is_any else f"model {asked!r}"
        raise BackendError("model_missing", f"no server on this device has {what}")
    return sorted(able, key=lambda one: _order(asked, one)) if len(able) > 1 else able


def _order(asked: str, listing: Listing) -> tuple[object, ...]:
    """Free, warm, and of two spellings that serve as well the one that was asked for."""
    is_exact = model_names.is_exact(asked, listing.model.name)
    return (not listing.free_slots, not listing.model.is_warm, not is_exact, preference(listing))


def slots(listings: Iterable[Listing]) -> int:
    """How much all servers do at once: those of their warm models, or of one if none is."""
    by_server: dict[str, list[ModelInfo]] = {}
    for one in listings:
        by_server.setdefault(one.backend_url, []).append(one.model)
    return sum(
        sum(model.slots for model in models if model.is_warm)
        or max(model.slots for model in models)
        for models in by_server.values()
    )


def load_s(listings: Iterable[Listing]) -> float:
    """Until the first of these could begin to answer; 0 where one is in memory and free."""
    waits = [0.0 if one.model.is_warm else _load_s(one) for one in listings if one.free_slots]
    return min(waits, default=0.0)


def _load_s(listing: Listing) -> float:
    if listing.load_s is not None:
        return listing.load_s
    return LOAD_S + listing.model.size_bytes / DISK_BYTES_PER_S


def averaged(before: float | None, measured: float) -> float:
    """A speed, as it counts after one more measurement."""
    measured = min(measured, TOKENS_PER_S_MAX)
    if before is None:
        return measured
    return RATE_WEIGHT * measured + (1 - RATE_WEIGHT) * before


@dataclass(frozen=True, slots=True)
class OnDisk:
    """One model that a pull might push out. `used_at_s` is by any clock; 0 for never."""

    name: str
    bytes: int
    used_at_s: float
    is_pulled: bool
    in_flight: int


def make_room(
    needed_bytes: int, on_disk: Sequence[OnDisk], *, bytes_max: int | None, evict: Eviction
) -> tuple[str, ...]:
    """The models to delete so that `needed_bytes` more fit the owner's `bytes_max`.

    Raises:
        BackendError: `rejected`, what may be deleted does not make enough room.
    """
    if bytes_max is None:
        return ()
    over = sum(one.bytes for one in on_disk) + needed_bytes - bytes_max
    allowed = [
        one
        for one in on_disk
        if not one.in_flight and (evict == "any" or (evict == "pulled" and one.is_pulled))
    ]
    going: list[str] = []
    for one in sorted(allowed, key=lambda one: (one.used_at_s, one.name)):
        if over <= 0:
            break
        going.append(one.name)
        over -= one.bytes
    if over > 0:
        detail = f"{needed_bytes} bytes do not fit: {over} over the owner's {bytes_max} for models"
        raise BackendError("rejected", detail)
    return tuple(going)
