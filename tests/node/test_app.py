"""A node put together from given parts: what it offers, remembers and refuses."""

from __future__ import annotations

import dataclasses

import pytest
import trio

from kowalski.mesh.membership_certificates import CertificateError
from kowalski.mesh.remembered_peers import RememberedPeers
from kowalski.node import app
from kowalski.node.storage import open_ledger_storage
from kowalski.protocol.errors import RequestRefusedError
from kowalski.protocol.messages.telemetry import HotDelta
from simulations.virtual_time import JumpingClock
from simulations.world import Part, World, open_world
from tests.node.services.prompts import ASKER, block

pytestmark = pytest.mark.trio


def roles_seen(world: World, by: int, of: int) -> tuple[str, ...]:
    return world[by].mesh.facts_of(world.peer(of)).roles


async def test_a_node_offers_the_rooms_that_its_owner_allows_and_no_others(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([Part(), Part(roles=("submit", "fold")), ASKER]) as world:
        assert roles_seen(world, 0, 1) == ("submit", "fold")
        assert roles_seen(world, 0, 2) == ("submit",)
        asked = HotDelta(boot="0" * 16, sequence=1, hot=world[1].mesh.facts_of(world.peer(1)).hot)  # type: ignore[arg-type]
        for protocol in ("/kowalski/task/1", "/kowalski/repl/1", "/kowalski/inference/1"):
            with pytest.raises(RequestRefusedError, match="unsupported"):
                async with world[1].mesh.converse(world.peer(1), protocol, asked) as talk:
                    await talk.receive()


async def test_a_node_without_a_sandbox_offers_no_repl(virtual_time: JumpingClock) -> None:
    async with open_world([Part(), Part(languages={})]) as world:
        assert "repl" not in roles_seen(world, 0, 1)
        assert "repl" in roles_seen(world, 1, 0)


async def test_a_certificate_limits_what_a_node_offers(virtual_time: JumpingClock) -> None:
    async with open_world(2) as world:
        place = world.places[1]
        root = world.places[0].membership.root
        assert root is not None
        await world.kill(1)
        place.membership = dataclasses.replace(
            place.membership,
            certificate=root.certify(place.identity.peer, ("fold",), now_unix_s=1_800_000_000),
        )
        await world.start(1)
        await world.meet()
        assert roles_seen(world, 0, 1) == ("fold",)


async def test_a_node_with_the_certificate_of_another_does_not_open(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(2) as world:
        place = world.places[1]
        await world.kill(1)
        assert place.hands is not None
        with open_ledger_storage(place.config.ledger_path) as storage:
            async with world.network.transport(place.identity.peer) as transport:
                opening = app.open_node(
                    place.config, transport, world.places[0].membership, place.hands, storage
                )
                with pytest.raises(CertificateError, match="certificate of"):
                    await opening.__aenter__()


async def test_a_node_finds_the_peers_that_it_remembers(virtual_time: JumpingClock) -> None:
    async with open_world(3) as world:
        place = world.places[2]
        remembered = RememberedPeers(place.config.data_dir / "peers.json")
        assert set(remembered.peers) == {world.peer(0), world.peer(1)}
        for number in (0, 1, 2):
            await world.kill(number)
        # Nobody tells these two of each other.
        async with world._open(world.places[0]), world._open(place) as node:
            with trio.fail_after(30):
                while not node.mesh.is_routable(world.peer(0)):  # noqa: ASYNC110 virtual time
                    await trio.sleep(0.1)


async def test_a_static_peer_of_the_configuration_is_dialled(virtual_time: JumpingClock) -> None:
    async with open_world(2) as world:
        await world.kill(1)
        place = world.places[1]
        (place.config.data_dir / "peers.json").unlink()
        address = f"/ip4/192.0.2.7/tcp/4170/p2p/{world.peer(0)}"
        place.config = place.config.model_copy(update={"peers": (address,)})
        async with world._open(place) as node:
            facts = {one.peer: one for one in node.mesh.facts()}
            assert facts[world.peer(0)].addresses == ("/ip4/192.0.2.7/tcp/4170",)


async def test_models_that_appear_are_announced_at_once(virtual_time: JumpingClock) -> None:
    async with open_world([Part(), Part(models=("m",))]) as world:
        place = world.places[1]
        assert place.hands is not None
        first = place.backend.models[0]
        place.backend.models = (first, dataclasses.replace(first, name="other"))
        await place.hands.catalogue.refresh()
        await trio.sleep(0.1)
        profile = world[0].mesh.facts_of(world.peer(1)).profile
        assert profile is not None
        assert {model.name for model in profile.models} == {"m", "other"}


async def test_leaving_the_block_ends_everything_that_the_node_began(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(2) as world:
        world.submit(0, block("wait 500"), mode="blocks")
        await world.until(lambda: len(world.cells) == 1)
        before = trio.current_time()
        place = world.places[0]
        assert place.scope is not None
        place.scope.cancel()
        await place.ended.wait()
        assert trio.current_time() - before < 6
        await world.until(lambda: not world[1].mesh.is_routable(world.peer(0)))
