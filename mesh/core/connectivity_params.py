"""How patient `connectivity` is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Params:
    """Seconds, all of them; the defaults suit a home network."""

    yield_s: float = 1.0
    """How long the higher id leaves dialling and asking to the lower one."""
    retry_s: float = 0.5
    retry_s_max: float = 20.0
    stranger_s: float = 30.0
    """How long a connected peer may take to prove that it belongs; joining happens in it."""
    shun_s: float = 60.0
    """How long a peer that failed to prove it is left alone."""
    misses_max: int = 2
    """Signs of life missed in a row, after which nothing is sent there."""
    silence_s: float = 6.0
    """Without a sign of life, after which the connection is given up; networks do hiccup."""
    ask_again_s: float = 2.0
    """Between questions to a connected member that the mesh has given up, which nobody probes."""
    forget_announced_s: float = 3600.0
    """After the last announcement of a peer of which nobody else has ever told."""
    forget_s: float = 24 * 3600.0
