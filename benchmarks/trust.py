"""What trust costs: `python -m benchmarks.trust`.

The CPU time of checking a request and a certificate; on real libp2p over loopback the time of a
handshake, of joining, and of a revocation until eight nodes have hung up.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import structlog
import trio

from benchmarks import machine
from benchmarks.figures import head, report
from kowalski.mesh.admission import join
from kowalski.mesh.certificate_book import CertificateBook
from kowalski.mesh.conversation import open_asker
from kowalski.mesh.core.connectivity import Sighted
from kowalski.mesh.identity import Identity, new_identity
from kowalski.mesh.invites import InviteBook
from kowalski.mesh.libp2p_transport import open_libp2p_transport
from kowalski.mesh.membership_certificates import (
    Admin,
    Authority,
    Membership,
    MeshRoot,
    certify,
    found_mesh,
)
from kowalski.mesh.mesh import Mesh, open_mesh
from kowalski.mesh.telemetry_gossip import Self
from kowalski.mesh.transport import Transport
from kowalski.mesh.trust import Keeping
from kowalski.protocol.ids import Address
from kowalski.protocol.join_line import JoinLine
from kowalski.protocol.messages.telemetry import Hot, Profile
from kowalski.protocol.messages.trust import ROLES, Role

LOOPBACK = (Address("/ip4/127.0.0.1/tcp/0"),)
BOOT = "00000000000000b0"
NODES = 8
LOOK_S = 0.005


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.trust", description=__doc__)
    arguments.add_argument("--runs", type=int, default=5, help="of each figure (default 5)")
    options = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    print(machine.describe())
    print()
    head()
    with tempfile.TemporaryDirectory() as made:
        _checks(options.runs)
        trio.run(_requests, options.runs, Path(made))
        trio.run(_on_wires, options.runs, Path(made))


def _cpu_ms(runs: int, times: int, action: Callable[[], object]) -> list[float]:
    """Of one action, in milliseconds of CPU; `times` in a row, so often."""
    taken = []
    for _ in range(runs):
        began = time.process_time()
        for _ in range(times):
            action()
        taken.append((time.process_time() - began) / times * 1000)
    return taken


def _checks(runs: int) -> None:
    now, root, admin_is, peer = int(time.time()), MeshRoot(bytes(range(32))), *_two()
    admin = Admin(admin_is, certify(root, admin_is.peer, ROLES, now_unix_s=now))
    authorities: tuple[tuple[str, Authority], ...] = (("root", root), ("an admin", admin))
    for name, authority in authorities:
        signed = certify(authority, peer.peer, ROLES, now_unix_s=now)
        book = CertificateBook(admin_is.peer, root.mesh, time.time)
        taken = _cpu_ms(runs, 500, lambda book=book, s=signed: book.check(peer.peer, s))
        report(f"verify a certificate by {name}, cold (ms CPU)", taken)


def _two() -> tuple[Identity, Identity]:
    return new_identity(), new_identity()


async def _requests(runs: int, folder: Path) -> None:
    home = new_identity()
    askers: frozenset[Role] = frozenset({"submit"})
    founded = found_mesh(home.peer, now_unix_s=int(time.time()))
    async with _open(home, founded, folder) as (mesh, _):
        trust = mesh.trust
        taken = _cpu_ms(
            runs, 5000, lambda: trust.check_asker(home.peer, "/kowalski/repl/1", askers)
        )
        report("check who asks, at each request (ms CPU)", taken)


async def _on_wires(runs: int, folder: Path) -> None:
    joins, handshakes, revocations = [], [], []
    for run in range(runs):
        with trio.fail_after(120):
            at = folder / str(run)
            at.mkdir()
            join_s, handshake_s = await _join_once(at)
            joins.append(join_s)
            handshakes.append(handshake_s)
            revocations.append(await _revoke_once(at))
    report("join: connect, prove, certificate (s)", joins)
    report("handshake: connected until routable (s)", handshakes)
    report(f"revocation until all of {NODES} have hung up (s)", revocations)


@asynccontextmanager
async def _open(
    identity: Identity, membership: Membership, folder: Path, transport: Transport | None = None
) -> AsyncIterator[tuple[Mesh, InviteBook]]:
    name = identity.peer[-8:]

    def profile(sequence: int) -> Profile:
        return Profile(
            boot=BOOT,
            sequence=sequence,
            name=name,
            version="0",
            roles=(),
            addresses=(),
            sandbox="none",
            hot=Hot(),
        )

    invites = InviteBook(folder / f"{name}.json", time.time)
    async with AsyncExitStack() as stack:
        if transport is None:
            transport = await stack.enter_async_context(
                open_libp2p_transport(identity, listen=LOOPBACK)
            )
        mesh = await stack.enter_async_context(
            open_mesh(
                transport,
                membership,
                Self(name, BOOT, profile, Hot),
                invites,
                unix_clock=time.time,
                keeping=Keeping(identity),
            )
        )
        yield mesh, invites


async def _join_once(folder: Path) -> tuple[float, float]:
    home_is, guest_is = _two()
    founded = found_mesh(home_is.peer, now_unix_s=int(time.time()))
    async with (
        _open(home_is, founded, folder) as (home, invites),
        open_libp2p_transport(guest_is, listen=LOOPBACK) as transport,
    ):
        invite = invites.issue(("submit",), ttl_s=60, uses=1)
        addresses = home.facts_of(home.me).addresses
        line = JoinLine(
            mesh=founded.mesh,
            inviter=home.me,
            addresses=addresses,
            invite=bytes.fromhex(invite.id),
            secret=bytes.fromhex(invite.secret),
            not_after_unix_s=invite.not_after_unix_s,
            roles=invite.roles,
        )
        began = time.monotonic()
        await transport.connect(home.me, addresses[0], timeout_s=5)
        async with open_asker(transport) as asker:
            joined = await join(guest_is.peer, "guest", line, asker, unix_clock=time.time)
        join_s = time.monotonic() - began
        began = time.monotonic()
        async with _open(guest_is, joined, folder, transport) as (guest, _):
            guest.sighted(Sighted(home.me, addresses))
            await _until(lambda: guest.is_routable(home.me) and home.is_routable(guest.me))
            return join_s, time.monotonic() - began


async def _revoke_once(folder: Path) -> float:
    now = int(time.time())
    identities = [new_identity() for _ in range(NODES)]
    founded = found_mesh(identities[0].peer, now_unix_s=now)
    assert founded.root is not None
    async with AsyncExitStack() as stack:
        nodes: list[Mesh] = []
        for identity in identities:
            signed = founded.root.certify(identity.peer, ROLES, now_unix_s=now)
            belongs = Membership(founded.mesh, signed, None) if nodes else founded
            mesh, _ = await stack.enter_async_context(_open(identity, belongs, folder))
            for other in nodes:
                mesh.sighted(Sighted(other.me, other.facts_of(other.me).addresses))
            nodes.append(mesh)
        await _until(
            lambda: all(one.is_routable(other.me) for one in nodes for other in nodes),
        )
        lost = nodes[-1]
        began = time.monotonic()
        nodes[0].trust.revoke(lost.me, "a benchmark")
        await _until(
            lambda: not any(one.is_member(lost.me) or one.roles_of(lost.me) for one in nodes[:-1])
        )
        return time.monotonic() - began


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 nothing else tells of it
        await trio.sleep(LOOK_S)


if __name__ == "__main__":
    main()
