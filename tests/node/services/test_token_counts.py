"""Counts of tokens through the mesh: who is asked, and what stands where nobody can tell."""

from __future__ import annotations

import dataclasses

import pytest

from kowalski.node.backends.seam import BackendError
from kowalski.node.services.token_counts import REQUEST_BYTES_MAX, TokenCounts, order
from kowalski.rlm.tokens import estimate_tokens
from simulations.virtual_time import JumpingClock
from simulations.world import open_world
from tests.node.services.prompts import ASKER, THINKER

pytestmark = pytest.mark.trio

TEXTS = ("the valve is shut", "", "a bird, unquestionably")


async def test_a_peer_that_has_the_model_counts_as_its_server_does(
    virtual_time: JumpingClock,
) -> None:
    other = dataclasses.replace(THINKER, models=("other",))
    async with open_world([ASKER, other, THINKER]) as world:
        found = await TokenCounts(world[0].mesh).count("m", TEXTS)
        assert (found.counts, found.is_estimate) == ((4, 0, 3), False)
        assert (found.by, found.model) == ("node-2", "m")


async def test_where_nobody_has_it_or_counts_it_is_an_estimate(virtual_time: JumpingClock) -> None:
    estimate = tuple(map(estimate_tokens, TEXTS))
    async with open_world([ASKER, THINKER]) as world:
        counts = TokenCounts(world[0].mesh)
        nobody = await counts.count("nobody-has-it", TEXTS)
        assert (nobody.counts, nobody.is_estimate, nobody.by) == (estimate, True, None)
        world.places[1].backend.failure = BackendError("unreachable", "it died")
        ill = await counts.count("m", TEXTS)
        assert (ill.counts, ill.is_estimate) == (estimate, True)
        long = await counts.count("m", ["x " * REQUEST_BYTES_MAX])
        assert long.is_estimate


async def test_the_next_peer_counts_where_the_first_cannot(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, THINKER, THINKER]) as world:
        facts = order("m", world[0].mesh.facts())
        assert {one.name for one in facts} == {"node-1", "node-2"}
        number = int(facts[0].name.removeprefix("node-"))
        world.places[number].backend.failure = BackendError("unreachable", "it died")
        found = await TokenCounts(world[0].mesh).count("m", TEXTS)
        assert (found.counts, found.is_estimate, found.by) == ((4, 0, 3), False, facts[1].name)
