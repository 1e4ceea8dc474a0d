"""The composition root: opens every room of a node, gives each what it needs, closes them again.

The only module that knows them all. `run_node` makes the real parts; `open_node` puts a node
together from parts that are given, which is how tests and simulations have many in one process.
"""

from __future__ import annotations

import os
import platform
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import structlog
import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.core.connectivity import MemberConnected, MemberDisconnected, Sighted
from kowalski.mesh.discovery import Discovery, open_discovery
from kowalski.mesh.identity import Identity, load_or_create_identity
from kowalski.mesh.invites import InviteBook
from kowalski.mesh.libp2p_loading import load_transport
from kowalski.mesh.membership_certificates import (
    Membership,
    save_membership,
    verify,
)
from kowalski.mesh.mesh import CONTENT_PROTOCOL, Mesh, Tuning, open_mesh
from kowalski.mesh.plain_nursery import first_error
from kowalski.mesh.remembered_peers import RememberedPeers
from kowalski.mesh.sleep_watch import time_with_sleep
from kowalski.mesh.transport import Transport
from kowalski.mesh.trust import Keeping
from kowalski.node import control, verbs
from kowalski.node.backends.catalogue import Catalogue, open_catalogue
from kowalski.node.backends.http import open_http
from kowalski.node.backends.llama_child import open_model_files
from kowalski.node.backends.model_files import is_model_file
from kowalski.node.backends.probing import Candidate, Finding, candidates, probe
from kowalski.node.backends.tokenizer_files import of_this_user
from kowalski.node.collecting import keep_for_good
from kowalski.node.config import NodeConfig
from kowalski.node.copy_storage import CopyStorage, open_copy_storage
from kowalski.node.core.model_policy import ModelRules
from kowalski.node.http.room import Place, Rooms, open_http_room
from kowalski.node.joining import known_membership, new_membership
from kowalski.node.model_book import ModelBook
from kowalski.node.own_membership import ENDED_IS_FINE
from kowalski.node.repl.opening import Trial, open_host_here, try_here
from kowalski.node.repl.owner_limits import limits_of
from kowalski.node.repl.owner_limits import read as read_limit
from kowalski.node.repl.sandbox import SandboxVerdict
from kowalski.node.repl.seam import SessionsHost
from kowalski.node.service_notices import ServiceNotices
from kowalski.node.services import folding, inference, placement, repl
from kowalski.node.services.availability import Watched, keep_availability
from kowalski.node.services.dispatch import Dispatch
from kowalski.node.services.draining import Draining, is_done_elsewhere
from kowalski.node.services.dry_run import open_reasons
from kowalski.node.services.kept_calls import Once, open_kept_calls
from kowalski.node.services.leading import Leading, open_leading
from kowalski.node.services.model_requests import ModelRequests
from kowalski.node.services.own_capacity import OwnCapacity
from kowalski.node.services.placed_work import PlacedWork
from kowalski.node.services.placing import Placing
from kowalski.node.services.reach import open_reach
from kowalski.node.services.submitting import open_submitting
from kowalski.node.services.telemetry import Device, NodeTelemetry, device_here
from kowalski.node.sightings import follow_sightings
from kowalski.node.stopping import Stopping
from kowalski.node.storage import LedgerStorage, open_ledger_storage
from kowalski.node.tracing import NoTracing, Tracing, open_tracing
from kowalski.protocol.ids import Address, PeerId
from kowalski.protocol.join_line import parse as parse_join_line
from kowalski.protocol.messages.trust import Role
from kowalski.rlm.tokens import estimate_tokens

log = structlog.get_logger(__name__)


CLIENTS: frozenset[Role] = frozenset({"submit", "coordinate"})
"""Who may have code run, models asked and texts folded: for a task, or directly."""

FOLDING_SLOTS = 2


@dataclass(frozen=True, slots=True)
class Hands:
    """What a node runs code and models with. `host` is None where nothing contains code."""

    host: SessionsHost | None
    verdict: SandboxVerdict
    catalogue: Catalogue
    session_idle_s: float = repl.IDLE_S_MAX


# --- a node of real parts -----------------------------------------------------------------------


async def run_node(config: NodeConfig, belongs_to: int | None = None) -> None:
    """Be a node until SIGINT or SIGTERM, or until `belongs_to`, a descriptor, has nothing to read.

    Raises:
        ConfigError: something that the operator can mend.
    """
    try:
        with control.claim_data_dir(config.data_dir):
            async with trio.open_nursery() as nursery:
                notices = ServiceNotices(os.environ)
                stopping = Stopping(nursery.cancel_scope, notices, within_s=config.drain_s)
                nursery.start_soon(stopping.heed_signals)
                if belongs_to is not None:
                    nursery.start_soon(stopping.heed_end_of, belongs_to)
                await _run(config, notices, stopping)
    except BaseExceptionGroup as group:
        raise first_error(group) from group.__cause__


async def _run(config: NodeConfig, notices: ServiceNotices, stopping: Stopping) -> None:
    started_at = trio.current_time()
    # What the operator mistyped is said before anything that takes time.
    line = parse_join_line(config.join.get_secret_value()) if config.join is not None else None
    identity = load_or_create_identity(config.identity_path)
    known = known_membership(config, identity, line)
    async with AsyncExitStack() as stack:
        storage = stack.enter_context(open_ledger_storage(config.ledger_path))
        tracing = stack.enter_context(
            open_tracing(config.otlp_endpoint, name=config.name, peer=identity.peer)
        )
        hands = await _open_hands(config, stack)
        # Imported a moment ago in a thread: it takes a second, and only nodes need it.
        from kowalski.mesh.libp2p_transport import open_libp2p_transport  # noqa: PLC0415

        listen = Address(f"/ip4/{config.listen_host}/tcp/{config.p2p_port}")
        transport = await stack.enter_async_context(
            open_libp2p_transport(identity, listen=(listen,))
        )
        membership = known or await new_membership(config, identity, line, transport)
        node = await stack.enter_async_context(
            open_node(
                config,
                transport,
                membership,
                hands,
                storage,
                identity=identity,
                tracing=tracing,
                clock_with_sleep=time_with_sleep,
            )
        )
        stopping.draining, stopping.say_goodbye = node.draining, node.mesh.leave
        nursery = await stack.enter_async_context(trio.open_nursery())
        discovery: Discovery | None = None
        if not config.no_mdns:
            discovery = await stack.enter_async_context(
                open_discovery(
                    identity.peer,
                    lambda: transport.addresses,
                    membership.mesh,
                    interfaces=_interfaces(transport.addresses),
                )
            )
            nursery.start_soon(follow_sightings, discovery.sightings, node.mesh)
        here = verbs.Here(
            config,
            sandbox=hands.verdict,
            languages=hands.host.languages if hands.host else {},
            catalogue=hands.catalogue,
            discovery=discovery,
            started_at=started_at,
            unix_clock=time.time,
        )
        served = verbs.verbs_of(node, here)
        if not config.no_http:
            await stack.enter_async_context(_open_http(config, node, here, served, stopping))
        await nursery.start(control.serve_control, config.control_path, served)
        keep_for_good()
        _say_ready(config, node.mesh, trio.current_time() - started_at)
        notices.ready(f"peer {identity.peer} of mesh {membership.mesh}")
        await notices.keep_watchdog()
        await trio.sleep_forever()


@asynccontextmanager
async def _open_http(
    config: NodeConfig,
    node: verbs.Node,
    here: verbs.Here,
    served: Mapping[str, control.Verb],
    stopping: Stopping,
) -> AsyncIterator[None]:
    place = Place(
        config.http_host,
        config.http_port,
        token_path=config.http_token_path,
        scratch_path=config.scratch_path,
        hosts=frozenset((*config.http_hosts, *_own_names(node.mesh))),
        origins=frozenset(config.http_origins),
    )
    rooms = Rooms(
        node.mesh,
        node.work,
        node.store,
        node.submitter,
        served,
        here.unix_clock,
        node.tracing,
        node.leading.copies if node.leading else None,
    )
    async with open_http_room(place, rooms) as (stopping.server, here.ports.http):
        yield


def _own_names(mesh: Mesh) -> set[str]:
    """What other machines may call this one: its addresses, and its name with and without mDNS."""
    addresses = {address.split("/")[2] for address in mesh.facts_of(mesh.me).addresses}
    name = platform.node().split(".")[0].lower()
    return addresses | {name, f"{name}.local"} - {""}


async def _open_hands(config: NodeConfig, stack: AsyncExitStack) -> Hands:
    """Try the sandbox while libp2p is being imported, then look for model servers."""
    tried: list[Trial] = []
    limits = limits_of(map(read_limit, config.repl_limits))

    async def try_sandbox() -> None:
        trial = await try_here(
            scratch_path=config.data_dir,
            allow_none=config.unsafe_repl,
            offers_repl="repl" in config.roles,
            limits=limits,
            network=config.repl_network,
        )
        tried.append(trial)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, load_transport)
        nursery.start_soon(try_sandbox)
    (trial,) = tried
    http = await stack.enter_async_context(open_http())
    places = candidates(
        [text for text in config.backends if not is_model_file(text)],
        ollama_host=config.ollama_host,
        openai_base_url=config.openai_base_url,
        openai_api_key=config.api_key.get_secret_value() if config.api_key else None,
    )

    async def look(wanted: Sequence[Candidate]) -> tuple[Finding, ...]:
        return await probe(wanted, http=http, estimate_tokens=estimate_tokens)

    infers = "infer" in config.roles
    catalogue = await stack.enter_async_context(open_catalogue(places if infers else (), look))
    files = tuple(text for text in config.backends if infers and is_model_file(text))
    await stack.enter_async_context(open_model_files(files, catalogue))
    host = await stack.enter_async_context(
        open_host_here(
            trial,
            # As many again for those whose cells wait for sub-calls, their slots lent.
            slots=2 * config.repl_slots,
            data_dir=config.data_dir,
            scratch_path=config.content_path,
            limits=limits,
        )
    )
    return Hands(host, trial.verdict, catalogue)


def _interfaces(addresses: tuple[Address, ...]) -> tuple[str, ...] | None:
    """Where to announce: who listens on loopback alone is nobody's business elsewhere."""
    hosts = {address.split("/")[2] for address in addresses}
    return ("127.0.0.1",) if hosts == {"127.0.0.1"} else None


def _say_ready(config: NodeConfig, mesh: Mesh, after_s: float) -> None:
    log.info(
        "ready",
        name=config.name,
        peer=mesh.me,
        mesh=mesh.membership.mesh,
        addresses=mesh.facts_of(mesh.me).addresses,
        after_s=round(after_s, 2),
    )


# --- a node of given parts ----------------------------------------------------------------------


@asynccontextmanager
async def open_node(
    config: NodeConfig,
    transport: Transport,
    membership: Membership,
    hands: Hands,
    storage: LedgerStorage,
    *,
    identity: Identity | None = None,
    unix_clock: Callable[[], float] = time.time,
    boot: str | None = None,
    device: Device | None = None,
    tracing: Tracing | None = None,
    clock_with_sleep: Callable[[], float] = trio.current_time,
) -> AsyncIterator[verbs.Node]:
    """The rooms that the owner and the certificate allow, open for the length of the block.

    `clock_with_sleep` goes on while the machine sleeps, see `mesh.sleep_watch`.
    """
    boot = boot or secrets.token_hex(8)
    device = device or device_here(config.data_dir)
    tracing = tracing or NoTracing()
    roles = _certified(config, membership, transport.peer, unix_clock())
    telemetry = NodeTelemetry(
        name=config.name,
        boot=boot,
        roles=_offered(roles, hands),
        sandbox=hands.verdict.tier,
        device=device.profile,
        sample=device.sample,
        addresses=lambda: transport.addresses,
    )
    about = telemetry.about()
    invites = InviteBook(config.invites_path, unix_clock)
    store = ContentStore(config.content_path, transport.peer)

    with open_copy_storage(config.copies_path) as copies:
        furnished: list[tuple[PlacedWork, Leading | None, Draining]] = []

        def furnish(mesh: Mesh, nursery: trio.Nursery) -> None:
            work = PlacedWork(mesh, store, Placing(mesh.me, Dispatch(mesh, nursery)))
            rooms = _Rooms(config, mesh, work, store, copies, hands, telemetry, nursery, unix_clock)
            furnished.append((work, *rooms.open(roles)))

        async with (
            open_mesh(
                transport,
                membership,
                about,
                invites,
                unix_clock=unix_clock,
                keeping=_keeping(config, identity),
                tuning=Tuning(clock_with_sleep=clock_with_sleep),
                furnish=furnish,
                around=tracing.answering,
            ) as mesh,
            trio.open_nursery() as nursery,
        ):
            ((work, leading, draining),) = furnished
            opening = partial(open_submitting, boot=boot, unix_clock=unix_clock, identity=identity)
            submitting = await opening(mesh, transport, storage, store, nursery, leading=leading)
            draining.step_down = submitting.detached.step_down
            open_reach(mesh, transport, unix_clock)
            open_reasons(mesh, store, work, submitting.submitter)
            _look_for(mesh, config, RememberedPeers(config.peers_path))
            nursery.start_soon(_announce_changes, hands, mesh)
            nursery.start_soon(store.sweep)
            yield verbs.Node(mesh, submitting, work, store, invites, leading, draining, tracing)
            nursery.cancel_scope.cancel()


def _keeping(config: NodeConfig, identity: Identity | None) -> Keeping:
    return Keeping(
        identity,
        config.roster_path,
        lambda renewed: save_membership(config.mesh_path, renewed),
        config.incarnation_path,
    )


def _certified(
    config: NodeConfig, membership: Membership, peer: PeerId, now_unix_s: float
) -> tuple[Role, ...]:
    """What the owner wants this node to be, as far as its certificate allows."""
    certificate = verify(
        membership.certificate,
        mesh=membership.mesh,
        peer=peer,
        now_unix_s=now_unix_s,
        rules=ENDED_IS_FINE,
    )
    certified = frozenset[str](certificate.roles)
    return tuple(role for role in config.roles if role in certified)


def _offered(roles: tuple[Role, ...], hands: Hands) -> tuple[Role, ...]:
    return tuple(role for role in roles if role != "repl" or hands.host is not None)


@dataclass(frozen=True, slots=True)
class _Rooms:
    """What the rooms that serve peers are opened with."""

    config: NodeConfig
    mesh: Mesh
    work: PlacedWork
    store: ContentStore
    copies: CopyStorage
    hands: Hands
    telemetry: NodeTelemetry
    nursery: trio.Nursery
    unix_clock: Callable[[], float]

    def open(self, roles: tuple[Role, ...]) -> tuple[Leading | None, Draining]:
        mesh, hands, told, hot = self.mesh, self.hands, self.telemetry.rooms, self.telemetry.hot
        mesh.serve(CONTENT_PROTOCOL, self.store.answer)
        code_slots = self.config.availability.slots(self.config.repl_slots)
        own = OwnCapacity(frozenset(roles), hands.host, hands.catalogue, code_slots, FOLDING_SLOTS)
        elsewhere = partial(is_done_elsewhere, mesh)
        gate = placement.open_gate(
            own, mesh, self.store, self.nursery, hot=hot, askers=CLIENTS, elsewhere=elsewhere
        )
        told.paused = lambda: gate.paused
        watched = Watched(self.unix_clock, self.telemetry.is_on_battery)
        self.nursery.start_soon(keep_availability, gate, mesh, self.config.availability, watched)
        cells: repl.ReplRoom | None = None
        if "repl" in roles and (host := hands.host) is not None:
            cells = repl.ReplRoom(host, self.store, mesh, self.nursery, hot=hot)
            mesh.serve(repl.PROTOCOL, gate.admitting(cells.answer), askers=CLIENTS)
            self.nursery.start_soon(lambda: cells.evict_idle(idle_s=self.hands.session_idle_s))
            told.repl = lambda: gate.occupancy("code", min(code_slots, host.slots))
            told.languages = lambda: dict(host.languages)
        if "infer" in roles:
            kept = open_kept_calls(self.nursery)
            models = self._inference_room(kept.once)
            answer = kept.keeping(gate.admitting(models.answer))
            mesh.serve(inference.PROTOCOL, answer, askers=CLIENTS)
            told.inference = lambda: gate.occupancy("inference", models.slots)
            told.models = lambda: models.models
            told.tokens_per_s = lambda: models.tokens_per_s
            told.prompt_tokens_per_s = lambda: models.prompt_tokens_per_s
        if "fold" in roles:
            folds = folding.FoldingRoom(self.store, mesh, slots=FOLDING_SLOTS, hot=hot)
            mesh.serve(folding.PROTOCOL, gate.admitting(folds.answer), askers=CLIENTS)
            told.folding = lambda: gate.occupancy("folding", FOLDING_SLOTS)
        leading: Leading | None = None
        if "coordinate" in roles:
            leading = open_leading(
                mesh, self.work, self.store, self.copies, self.nursery, unix_clock=self.unix_clock
            )
        draining = Draining(
            gate,
            coordinator=leading.coordinator if leading else None,
            cells=cells,
            elsewhere=elsewhere,
            announce=mesh.announce_profile,
        )
        told.is_draining = lambda: draining.is_on
        return leading, draining

    def _inference_room(self, once: Once) -> inference.InferenceRoom:
        catalogue, mesh, config = self.hands.catalogue, self.mesh, self.config
        hot = self.telemetry.hot
        book = ModelBook(config.model_book_path, self.unix_clock)
        rules = ModelRules(config.model_changes, config.models_bytes_max, config.models_evict)
        about_models = ModelRequests(
            catalogue, book, rules, me=mesh.me, roles_of=mesh.roles_of, hot=hot
        )
        count = of_this_user().count
        room = partial(inference.InferenceRoom, catalogue, self.store, mesh, once=once, me=mesh.me)
        return room(hot=hot, models=about_models, on_use=book.use, count=count)


def _look_for(mesh: Mesh, config: NodeConfig, remembered: RememberedPeers) -> None:
    """Those whom we met before, and those whom the owner names."""
    mesh.listen(lambda change: _remember(remembered, change))
    for peer, addresses in remembered.peers.items():
        mesh.sighted(Sighted(peer, addresses, is_remembered=True))
    for static in config.static_peers:
        mesh.sighted(Sighted(static.peer, (static.address,), is_static=True))


def _remember(remembered: RememberedPeers, change: MemberConnected | MemberDisconnected) -> None:
    if isinstance(change, MemberConnected):
        remembered.remember(change.peer, change.addresses)


async def _announce_changes(hands: Hands, mesh: Mesh) -> None:
    """Models come and go, and slow languages are found while the node is up."""

    async def announce(changing: Catalogue | SessionsHost) -> None:
        while True:
            await changing.wait_changed()
            await mesh.announce_profile()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(announce, hands.catalogue)
        if hands.host is not None:
            nursery.start_soon(announce, hands.host)
