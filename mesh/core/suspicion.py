"""How long a suspected peer has to speak up, and when so many are suspect that it may be us.

The time shrinks as others come to the same suspicion by themselves. Source: A. Dadgar, J. Phillips,
J. Currey, "Lifeguard: Local Health Awareness for More Accurate Failure Detection", 2018
(arXiv 1707.00788), section IV-B; the constants of its implementation, hashicorp/memberlist.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, log10

from kowalski.protocol.ids import PeerId

MASS_FAILURE_MIN = 2
"""One suspect is one suspect, however small the mesh."""


@dataclass(frozen=True, slots=True)
class Params:
    """In a mesh of N it takes at least `multiplier` x max(1, log10 N) probe intervals."""

    multiplier: float = 3.0
    max_multiplier: float = 6.0
    """How much longer it takes while nobody else suspects the same."""
    confirmations: int = 2
    """Accusers beyond the first that make it as short as it gets."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Of one peer at one incarnation, by one or more accusers."""

    incarnation: int
    since: float
    accusers: frozenset[PeerId]
    patience: float = 1.0
    """How many times longer we wait than usual, from doubt in ourselves when it began."""
    is_held: bool = False
    """The verdict was due, and was put off because too many were suspect at once."""


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds from suspicion to verdict, at one size of the mesh."""

    by_confirmations: tuple[float, ...]
    reprieve_s: float
    """The longest of them; a verdict that is held waits so long once more."""


def waits(params: Params, interval_s: float, mesh_size: int) -> Waits:
    least_s = params.multiplier * max(1.0, log10(max(mesh_size, 1))) * interval_s
    most_s = params.max_multiplier * least_s
    # Neither the suspect nor the first accuser can confirm.
    needed = max(0, min(params.confirmations, mesh_size - 2))
    if not needed:
        return Waits((least_s,), most_s)
    shorter_s = (most_s - least_s) / log(needed + 1)
    return Waits(tuple(most_s - shorter_s * log(n + 1) for n in range(needed + 1)), most_s)


def due_at(suspicion: Suspicion, waits: Waits) -> float:
    """When the suspect is given up."""
    confirmed = min(max(len(suspicion.accusers), 1), len(waits.by_confirmations)) - 1
    wait_s = waits.by_confirmations[confirmed] * suspicion.patience
    return suspicion.since + wait_s + (waits.reprieve_s if suspicion.is_held else 0.0)


def is_mass_failure(suspects: int, others: int) -> bool:
    """More than a third at once: rather the network between us than all of them.

    In the spirit of Rapid (L. Suresh et al., USENIX ATC 2018), which acts on several reports only.
    """
    return suspects >= MASS_FAILURE_MIN and 3 * suspects > others
