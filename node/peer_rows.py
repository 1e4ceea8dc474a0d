"""Peers, what the mesh thinks of them, and how far they are apart, as rows of JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import trio

from kowalski.mesh.mesh import Mesh, PeerFacts
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.telemetry import Condition, Gpu, GpuUse, Hot, Occupancy, Profile

Reply = dict[str, object]


def row_of(mesh: Mesh, facts: PeerFacts, now_unix_s: float) -> Reply:
    """One peer as the verb `peers` tells it.

    `state` is that of our connection; `membership` what the mesh thinks of the peer, since
    `membership_age_s`; `age_s` how old our knowledge of its load is.
    """
    profile, hot, latency = facts.profile, facts.hot, facts.latency
    return {
        "peer": facts.peer,
        "name": facts.name,
        "state": facts.state,
        "membership": facts.membership,
        "incarnation": facts.incarnation,
        "membership_age_s": _rounded(facts.membership_age_s),
        "is_self": facts.is_self,
        "rtt_ms": _ms(facts.rtt_s),
        "rtt_least_ms": _ms(latency.least_s(trio.current_time())) if latency else None,
        "jitter_ms": _ms(latency.jitter_s) if latency else None,
        "load": load_of(facts),
        "loads": _loads(facts),
        "draining": hot.is_draining if hot else False,
        "cpu_percent": round(100 * hot.cpu_used, 1) if hot else None,
        "memory_used_fraction": round(hot.memory_used, 3) if hot else None,
        "tokens_per_s": dict(hot.tokens_per_s) if hot else {},
        "paused": hot.paused if hot else "",
        "languages": {one.name: one.version for one in profile.languages} if profile else {},
        "models": [one.name for one in profile.models] if profile else [],
        "sandbox": profile.sandbox if profile else None,
        "version": profile.version if profile else None,
        "system": profile.system if profile else None,
        "cpu": profile.cpu if profile else None,
        "cores": profile.cores if profile else None,
        "memory_bytes": profile.memory_bytes if profile else None,
        **condition_of(profile, hot),
        "roles": list(facts.roles),
        "is_admin": "admin" in mesh.roles_of(facts.peer),
        "certificate_ends_in_s": ends_in_s(mesh, facts.peer, now_unix_s),
        "addresses": list(facts.addresses),
        "age_s": _rounded(facts.age_s),
        "routable": facts.is_routable,
        "why_not": facts.why_not,
    }


def condition_of(profile: Profile | None, hot: Hot | None) -> Reply:
    """How the device is; None where it does not tell."""
    condition = hot.condition if hot else Condition()
    battery, pressure = condition.battery, condition.pressure
    return {
        "swap_used_fraction": _share(condition.swap_used),
        "disk_free_bytes": condition.disk_free_bytes,
        "disk_bytes": (profile.disk_bytes or None) if profile else None,
        "temperature_c": condition.temperature_c,
        "battery": {"charge": _share(battery.charge), "is_plugged": battery.is_plugged}
        if battery
        else None,
        "pressure": {
            "cpu": _share(pressure.cpu),
            "memory": _share(pressure.memory),
            "io": _share(pressure.io),
        }
        if pressure
        else None,
        "gpus": _gpus(profile.gpus if profile else (), condition.gpus),
    }


def _gpus(gpus: Sequence[Gpu], uses: Sequence[GpuUse]) -> list[Reply]:
    told: list[Reply] = []
    padded = (*uses, *[GpuUse()] * len(gpus))
    for gpu, use in zip(gpus, padded, strict=False):
        told.append(
            {
                "name": gpu.name,
                "memory_bytes": gpu.memory_bytes or None,
                "used_fraction": _share(use.busy),
                "memory_used_fraction": _share(use.memory_used),
                "temperature_c": use.temperature_c,
            }
        )
    return told


def _share(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def membership_of(mesh: Mesh) -> Reply:
    """How many of the others are in which state, and how sure of that we are.

    `local_health` is Lifeguard's: 0 is well, and each step makes us wait longer for others.
    """
    state = mesh.detection.state
    counted = Counter(member.state for member in state.table.members.values())
    return {
        "members": {one: counted.get(one, 0) for one in ("alive", "suspect", "failed", "left")},
        "incarnation": state.table.incarnation,
        "local_health": state.health,
        "partition_suspected": state.is_partition,
    }


def topology_of(mesh: Mesh) -> Reply:
    """The latency matrix; None where nobody has measured, or has not told yet.

    Row by row what `peer` measured: smoothed (`rtt_ms`), the least of 30 s, and the jitter.
    """
    rows, now = mesh.topology(), trio.current_time()
    here = [one for one in mesh.facts() if one.is_self or one.membership in {"alive", "suspect"}]
    matrix: list[Reply] = []
    for one in here:
        row = rows.get(one.peer)
        paths = [row.paths.get(other.peer) if row else None for other in here]
        matrix.append(
            {
                "peer": one.peer,
                "name": one.name,
                "age_s": _rounded(now - row.heard_at) if row else None,
                "rtt_ms": [_ms(path.smooth_s) if path else None for path in paths],
                "least_ms": [_ms(path.least_s) if path else None for path in paths],
                "jitter_ms": [_ms(path.jitter_s) if path else None for path in paths],
            }
        )
    return {"peers": [one.peer for one in here], "matrix": matrix}


def ends_in_s(mesh: Mesh, peer: PeerId, now_unix_s: float) -> float | None:
    """How long the certificate of `peer` still holds, None where we have not seen it."""
    certificate = mesh.trust.book.certificate(peer)
    return certificate.not_after_unix_s - now_unix_s if certificate else None


def load_of(facts: PeerFacts) -> float:
    """Of running code; 0 where nothing is known."""
    return 0.0 if facts.hot is None else _load(facts.hot.repl)


def _loads(facts: PeerFacts) -> dict[str, float]:
    """By kind of work, those alone for which the peer has places."""
    if facts.hot is None:
        return {}
    kinds = {"code": facts.hot.repl, "inference": facts.hot.inference, "fold": facts.hot.folding}
    return {kind: round(_load(at), 3) for kind, at in kinds.items() if at.slots}


def _load(at: Occupancy) -> float:
    return (at.running + at.queued) / max(at.slots, 1)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)
