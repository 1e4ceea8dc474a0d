"""The peers as placement sees them, and what is on its way to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from kowalski.mesh.candidates import Candidates, Look
from kowalski.mesh.core.glance import LOOKED_AT
from kowalski.mesh.core.placement import Need
from kowalski.mesh.core.telemetry_view import TelemetryView
from kowalski.mesh.loopback_transport import Weather, open_loopback_network
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.telemetry import Occupancy
from tests.mesh.members import (
    About,
    Village,
    busy,
    members,
    peer_of,
)

Clock = trio.testing.MockClock

LATENCY_S = 0.02
A, B, C = peer_of("A"), peer_of("B"), peer_of("C")


@pytest.fixture
async def village(tmp_path: Path) -> AsyncIterator[Village]:
    async with open_loopback_network(weather=Weather(latency_s=LATENCY_S)) as network:
        yield Village(network, tmp_path)


@pytest.mark.trio
async def test_candidates_are_the_members_and_we_ourselves_as_last_heard(
    village: Village, autojump_clock: Clock
) -> None:
    async with members(village, "A", "B") as (a, b):
        b.about.hot = busy(b.about.hot, 2).model_copy(update={"memory_used": 0.5})
        await trio.sleep(3)
        found = {candidate.peer: candidate for candidate in a.mesh.candidates()}
        assert found.keys() == {A, B}
        assert found[A].rtt_s == 0.0
        assert found[B].rtt_s == pytest.approx(2 * LATENCY_S, rel=0.01)
        assert found[B].occupancy["code"] == Occupancy(running=2, slots=4)
        assert found[B].memory_used == 0.5
        assert found[B].languages == {"python"}
        assert found[B].models == {"small"}
        assert found[B].roles == {"repl", "infer", "fold"}
        assert found[B].is_routable


@pytest.mark.trio
async def test_our_own_requests_count_until_the_peer_has_spoken_again(
    village: Village, autojump_clock: Clock
) -> None:
    async with members(village, "A", "B") as (a, _):

        def own() -> int:
            found = {candidate.peer: candidate for candidate in a.mesh.candidates()}
            return found[B].own_in_flight["code"]

        await trio.sleep(1)
        with a.mesh.sending(B, "code"), a.mesh.sending(B, "inference"):
            with a.mesh.sending(B, "code"):
                assert own() == 2
            assert own() == 1
            await trio.sleep(6)
            assert own() == 0
        assert own() == 0


@pytest.mark.trio
async def test_our_own_values_count_what_has_not_reached_the_room_yet(
    village: Village, autojump_clock: Clock
) -> None:
    async with village.open_member("A") as a:

        def own() -> int:
            (candidate,) = a.mesh.candidates()
            return candidate.own_in_flight["code"]

        with a.mesh.sending(A, "code"), a.mesh.sending(A, "code"):
            assert own() == 2
            a.about.hot = busy(a.about.hot, 1)
            assert own() == 1


@pytest.mark.trio
async def test_work_goes_to_the_idle_member(village: Village, autojump_clock: Clock) -> None:
    async with members(village, "A", "B", "C") as (a, b, _):
        need = Need("code", language="python")
        a.about.hot, b.about.hot = busy(a.about.hot, 4), busy(b.about.hot, 4)
        await trio.sleep(3)
        best = a.mesh.rank(need).best
        assert best is not None
        assert best.peer == C
        ranking = a.mesh.rank(need, excluding=frozenset({C}))
        assert {choice.peer for choice in ranking.choices} == {A, B}


@pytest.mark.trio
async def test_what_a_peer_can_do_is_read_anew_when_its_profile_changes(
    village: Village, autojump_clock: Clock
) -> None:
    async with members(village, "A", "B") as (a, b):

        def models(peer: PeerId) -> frozenset[str]:
            return {one.peer: one for one in a.mesh.candidates()}[peer].models

        await trio.sleep(1)
        assert models(A) == models(B) == {"small"}
        for about, name in ((a.about, "ours"), (b.about, "theirs")):
            about.models = (name,)
        assert models(A) == {"ours"}
        await b.mesh.announce_profile()
        await trio.sleep(1)
        assert models(B) == {"theirs"}


def large_view(count: int, *, able: int) -> TelemetryView:
    view, about = TelemetryView(), About("worker")
    for number in range(count):
        profile = about.profile(1)
        languages = profile.languages if number < able else ()
        told = profile.model_copy(update={"languages": languages})
        view = view.hear_profile(peer_of(f"{number}"), told, 0.0)
    return view


def test_in_a_large_mesh_as_many_are_looked_at_as_in_a_small_one_and_others_each_time() -> None:
    view, known = large_view(300, able=200), Candidates()
    look = Look(Need("code", language="python"), reader=peer_of("250"))
    seen = [known.looked_at(A, look, view, lambda _peer: True) for _ in range(20)]
    able = {peer_of(f"{number}") for number in (*range(200), 250)}
    for one in seen:
        assert one is not None
        assert peer_of("250") in one
        assert LOOKED_AT // 2 < len(one) <= LOOKED_AT + 1
        assert one.keys() <= able
    assert len({frozenset(one or ()) for one in seen}) == 20


@pytest.mark.parametrize(("count", "able"), [(LOOKED_AT, LOOKED_AT), (300, 5), (300, 0)])
def test_all_are_looked_at_where_they_are_few_or_few_are_able(count: int, able: int) -> None:
    view, look = large_view(count, able=able), Look(Need("code", language="python"))
    assert Candidates().looked_at(A, look, view, lambda _peer: True) is None


def test_a_peer_that_learnt_a_language_is_looked_at_from_then_on() -> None:
    view, known = large_view(100, able=0), Candidates()
    look = Look(Need("code", language="python"))
    assert known.looked_at(A, look, view, lambda _peer: True) is None
    for number in range(20):
        view = view.hear_profile(peer_of(f"{number}"), About("worker").profile(2), 1.0)
    seen = known.looked_at(A, look, view, lambda _peer: True)
    assert seen is not None
    assert seen.keys() == {peer_of(f"{number}") for number in range(20)}


def test_the_few_that_have_the_model_in_memory_are_looked_at() -> None:
    view, about = TelemetryView(), About("worker")
    for number in range(500):
        told = about.profile(1)
        models = tuple(
            model.model_copy(update={"is_warm": number in {7, 77}}) for model in told.models
        )
        told = told.model_copy(update={"models": models})
        view = view.hear_profile(peer_of(f"{number}"), told, 0.0)
    look, known = Look(Need("inference", model="small")), Candidates()
    for _ in range(10):
        seen = known.looked_at(A, look, view, lambda _peer: True)
        assert seen is not None
        assert {peer_of("7"), peer_of("77")} <= seen.keys()
        assert len(seen) <= 2 * LOOKED_AT
