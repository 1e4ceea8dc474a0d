"""The verbs about the mesh itself: who is here, who may come, and who must go."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import trio

from kowalski.mesh.admission import REFUSES_US
from kowalski.mesh.identity import public_key_of
from kowalski.mesh.invites import InviteBook
from kowalski.mesh.membership_certificates import Authority
from kowalski.mesh.mesh import Mesh, PeerFacts
from kowalski.node import control_messages as asked
from kowalski.node.control import Emit
from kowalski.protocol.errors import ConfigError, RequestRefusedError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.join_line import JoinLine
from kowalski.protocol.limits import ADDRESSES_MAX
from kowalski.protocol.messages.trust import ROLES, Role

Reply = dict[str, object]

ENDING_CHARS_MIN = 4
"""Of a peer id, to name a peer: fewer would put somebody out by a slip of the finger."""

REFUSALS_MAX = 5
"""Of peers that refuse us, told as warnings."""


class MeshVerbs:
    def __init__(self, mesh: Mesh, invites: InviteBook, unix_clock: Callable[[], float]) -> None:
        self._mesh = mesh
        self._invites = invites
        self._unix_clock = unix_clock

    async def peers(self, raw: Reply, _emit: Emit) -> Reply:
        asked.parse(asked.PeersRequest, raw)
        await trio.lowlevel.checkpoint()
        return {
            "peers": [self._row(one) for one in self._mesh.facts()],
            "roster_version": self._mesh.trust.book.roster_version,
        }

    def _row(self, facts: PeerFacts) -> Reply:
        profile, hot = facts.profile, facts.hot
        return {
            "peer": facts.peer,
            "name": facts.name,
            "state": facts.state,
            "is_self": facts.is_self,
            "rtt_ms": None if facts.rtt_s is None else round(facts.rtt_s * 1000, 2),
            "load": load_of(facts),
            "cpu_percent": round(100 * hot.cpu_used, 1) if hot else None,
            "memory_used_fraction": round(hot.memory_used, 3) if hot else None,
            "languages": {one.name: one.version for one in profile.languages} if profile else {},
            "models": [one.name for one in profile.models] if profile else [],
            "sandbox": profile.sandbox if profile else None,
            "roles": list(facts.roles),
            "is_admin": "admin" in self._mesh.roles_of(facts.peer),
            "certificate_ends_in_s": ends_in_s(self._mesh, facts.peer, self._unix_clock()),
            "addresses": list(facts.addresses),
            "age_s": None if facts.age_s is None else round(facts.age_s, 2),
            "routable": facts.is_routable,
            "why_not": facts.why_not,
        }

    async def invite(self, raw: Reply, _emit: Emit) -> Reply:
        request = asked.parse(asked.InviteRequest, raw)
        await trio.lowlevel.checkpoint()
        mesh = self._mesh
        authority = self._authority("invites")
        roles: tuple[Role, ...] = request.roles or tuple(role for role in ROLES if role != "admin")
        if refused := [role for role in roles if not authority.may_grant(role)]:
            raise RequestRefusedError(
                "not_allowed", f"only a node that has the root key grants {', '.join(refused)}"
            )
        invite = self._invites.issue(roles, ttl_s=ceil(request.ttl_s), uses=request.uses)
        line = JoinLine(
            mesh=mesh.membership.mesh,
            inviter=mesh.me,
            addresses=mesh.facts_of(mesh.me).addresses[:ADDRESSES_MAX],
            invite=bytes.fromhex(invite.id),
            secret=bytes.fromhex(invite.secret),
            not_after_unix_s=invite.not_after_unix_s,
            roles=roles,
        )
        return {
            "line": line.render(),
            "mesh": mesh.membership.mesh,
            "roles": list(roles),
            "uses": request.uses,
            "expires_in_s": request.ttl_s,
        }

    async def revoke(self, raw: Reply, _emit: Emit) -> Reply:
        """Put a member out, named by its peer id, the end of it, or its name."""
        request = asked.parse(asked.RevokeRequest, raw)
        await trio.lowlevel.checkpoint()
        self._authority("revokes")
        peer = find_peer(self._mesh, request.peer)
        name = self._mesh.name_of(peer)
        self._mesh.trust.revoke(peer, request.why)
        version = self._mesh.trust.book.roster_version
        return {"peer": peer, "name": name, "roster_version": version}

    def _authority(self, does: str) -> Authority:
        """Raises RequestRefusedError: `not_allowed`, with who may."""
        authority = self._mesh.trust.authority()
        if authority is not None and not self._mesh.trust.is_revoked:
            return authority
        admins = [
            self._mesh.name_of(one.peer)
            for one in self._mesh.facts()
            if "admin" in self._mesh.roles_of(one.peer)
        ]
        whom = f"here: {', '.join(admins)}" if admins else "none of them is known here"
        raise RequestRefusedError(
            "not_allowed", f"only the node that founded the mesh, or an admin, {does} ({whom})"
        )


def find_peer(mesh: Mesh, wanted: str) -> PeerId:
    """The peer that is called so: by its name, its id, or the end of that.

    Raises:
        ConfigError: nobody, or several, are called so.
    """
    ending = wanted.lstrip(".")
    peers = {one.peer: one.name for one in mesh.facts()}
    matches = [peer for peer, name in peers.items() if wanted in {peer, name}]
    if not matches and len(ending) >= ENDING_CHARS_MIN:
        matches = [peer for peer in peers if peer.endswith(ending)]
    if not matches and _is_peer(wanted):
        return PeerId(wanted)  # one that is lost may not have been here for long
    if len(matches) != 1:
        what = "no peer is" if not matches else f"{len(matches)} peers are"
        raise ConfigError(
            f"{what} called {wanted}; name it by the end of its id: `kowalski-node peers`"
        )
    return matches[0]


def _is_peer(text: str) -> bool:
    try:
        public_key_of(PeerId(text))
    except ValueError:
        return False
    return True


def ends_in_s(mesh: Mesh, peer: PeerId, now_unix_s: float) -> float | None:
    """How long the certificate of `peer` still holds, None where we have not seen it."""
    certificate = mesh.trust.book.certificate(peer)
    return certificate.not_after_unix_s - now_unix_s if certificate else None


def load_of(facts: PeerFacts) -> float:
    if facts.hot is None:
        return 0.0
    repl = facts.hot.repl
    return (repl.running + repl.queued) / max(repl.slots, 1)


def warnings_of(mesh: Mesh) -> list[str]:
    """What needs a person, in words."""
    twins = [
        warning if peer == mesh.me else f"{mesh.name_of(peer)}: {warning}"
        for peer, warning in mesh.twins.warnings().items()
    ]
    refusals = [
        f"{one.name} refuses this node: {one.why_not.removeprefix(REFUSES_US)}"
        for one in mesh.facts()
        if one.why_not.startswith(REFUSES_US)
    ]
    return [*twins, *refusals[:REFUSALS_MAX]]
