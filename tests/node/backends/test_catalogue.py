"""Which server gets a request, and what is known of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from kowalski.node.backends.catalogue import (
    FIRST_LOOK_S,
    NAMED_LOOK_S,
    Catalogue,
    open_catalogue,
)
from kowalski.node.backends.http import open_http
from kowalski.node.backends.in_memory import InMemoryBackend
from kowalski.node.backends.probing import Candidate, Finding, candidate, probe
from kowalski.node.backends.seam import BackendError, Completed, CompletionRequest, ModelInfo
from kowalski.rlm.tokens import estimate_tokens
from tests.node.backends.asking import estimate, exhaust, question
from tests.scripted_model_server import Act, Script, open_scripted_server

TEN_WORDS = "a b c d e f g h i j"


def words(_: CompletionRequest) -> str:
    return TEN_WORDS


def server(name: str, *models: ModelInfo, delay_per_token_s: float = 0.1) -> InMemoryBackend:
    return InMemoryBackend(
        words, models=models, name=name, url=f"memory://{name}", delay_per_token_s=delay_per_token_s
    )


@dataclass
class Device:
    """The servers of a device, which come and go."""

    servers: dict[str, InMemoryBackend] = field(default_factory=dict)
    looks: list[tuple[str, ...]] = field(default_factory=list)

    def places(self) -> list[Candidate]:
        return [Candidate(server.url, server.url) for server in self.servers.values()]

    async def look(self, places: Sequence[Candidate]) -> tuple[Finding, ...]:
        self.looks.append(tuple(place.url for place in places))
        await trio.lowlevel.checkpoint()
        return tuple(self._find(place.url) for place in places)

    def _find(self, url: str) -> Finding:
        backend = next(server for server in self.servers.values() if server.url == url)
        if backend.failure is not None:
            return Finding(url, is_explicit=False, why_not=str(backend.failure))
        return Finding(url, is_explicit=False, kind="openai", backend=backend)


def device(*servers: InMemoryBackend) -> Device:
    return Device({server.name: server for server in servers})


def names(catalogue: Catalogue) -> list[tuple[str, str]]:
    return [(each.model.name, each.backend_name) for each in catalogue.listings()]


async def run_to_end(catalogue: Catalogue, model: str) -> str:
    """Which server answered is seen by who has one in flight."""
    async with catalogue.answer(question(model=model), idle_timeout_s=9) as stream:
        (busy,) = [each.backend_name for each in catalogue.listings() if each.in_flight]
        await exhaust(stream)
        return busy


WARM = ModelInfo("m", is_warm=True, slots=2)
COLD = ModelInfo("m", is_warm=False, slots=2)


@pytest.mark.trio
async def test_warm_is_preferred_to_cold_then_fast_to_slow(autojump_clock: MockClock) -> None:
    house = device(
        server("cold", COLD, delay_per_token_s=0.01),
        server("slow", WARM, delay_per_token_s=1.0),
        server("fast", WARM, delay_per_token_s=0.1),
    )
    async with open_catalogue(house.places(), house.look) as catalogue:
        answered = [await run_to_end(catalogue, "m") for _ in range(4)]
        # Each warm one is tried once before the faster is known.
        assert sorted(answered[:2]) == ["fast", "slow"]
        assert answered[2:] == ["fast", "fast"]
        rates = {each.backend_name: each.tokens_per_s for each in catalogue.listings()}
    assert rates == {"fast": pytest.approx(10), "slow": pytest.approx(1), "cold": None}


@pytest.mark.trio
async def test_a_rate_follows_the_measurements_slowly(autojump_clock: MockClock) -> None:
    backend = server("s", WARM, delay_per_token_s=0.1)
    house = device(backend)
    async with open_catalogue(house.places(), house.look) as catalogue:
        await run_to_end(catalogue, "m")
        backend.delay_per_token_s = 0.2
        await run_to_end(catalogue, "m")
        assert catalogue.listings()[0].tokens_per_s == pytest.approx(0.7 * 10 + 0.3 * 5)


@pytest.mark.trio
async def test_how_long_texts_are_for_a_model_is_learnt_from_what_its_server_counts() -> None:
    house = device(server("s", WARM, delay_per_token_s=0.0))
    text = "word " * 200  # as many tokens for the server; by the general estimate more
    async with open_catalogue(house.places(), house.look) as catalogue:
        (listing,) = catalogue.listings()
        assert catalogue.estimate_tokens(listing, [text, ""]) == (estimate_tokens(text), 0)
        assert estimate_tokens(text) > 210
        plain = question(text, model="m")
        shown = dataclasses.replace(plain, images=(b"png",))
        for request, estimated in ((shown, estimate_tokens(text)), (plain, 200)):
            async with catalogue.answer(request, idle_timeout_s=9) as stream:
                await exhaust(stream)
            assert abs(catalogue.estimate_tokens(listing, [text])[0] - estimated) <= 1


@pytest.mark.trio
async def test_full_means_no_and_at_once(autojump_clock: MockClock) -> None:
    house = device(server("s", WARM))
    async with open_catalogue(house.places(), house.look) as catalogue:
        async with (
            catalogue.answer(question(model="m"), idle_timeout_s=9),
            catalogue.answer(question(model="m"), idle_timeout_s=9),
        ):
            assert catalogue.listings()[0].free_slots == 0
            with pytest.raises(BackendError) as caught:
                await run_to_end(catalogue, "m")
            assert caught.value.code == "overloaded"
            assert caught.value.retry_after_s is not None
        assert catalogue.listings()[0].free_slots == 2
        assert trio.current_time() == 0


@pytest.mark.trio
async def test_a_full_server_leaves_the_request_to_a_colder_one(autojump_clock: MockClock) -> None:
    house = device(server("warm", ModelInfo("m", is_warm=True)), server("cold", COLD))
    async with (
        open_catalogue(house.places(), house.look) as catalogue,
        catalogue.answer(question(model="m"), idle_timeout_s=9),
        catalogue.answer(question(model="m"), idle_timeout_s=9),
    ):
        taken = {each.backend_name: each.in_flight for each in catalogue.listings()}
    assert taken == {"warm": 1, "cold": 1}


@pytest.mark.trio
async def test_models_are_found_by_name_with_the_tag_left_out_or_by_no_name() -> None:
    house = device(server("s", ModelInfo("llama:latest"), ModelInfo("other"), delay_per_token_s=0))
    async with open_catalogue(house.places(), house.look) as catalogue:
        for name in ("llama", "llama:latest", "other", ""):
            await run_to_end(catalogue, name)
        with pytest.raises(BackendError) as caught:
            await run_to_end(catalogue, "lla")
    assert caught.value.code == "model_missing"


@pytest.mark.trio
async def test_a_server_that_comes_is_seen_at_the_next_look(autojump_clock: MockClock) -> None:
    backend = server("s", WARM)
    backend.failure = BackendError("unreachable", "nobody there")
    house = device(backend)
    async with open_catalogue(house.places(), house.look, interval_s=30) as catalogue:
        assert names(catalogue) == []
        assert catalogue.findings[0].why_not == "unreachable: nobody there"
        backend.failure = None
        await catalogue.wait_changed()
        assert trio.current_time() == 30
        assert names(catalogue) == [("m", "s")]
        assert catalogue.findings[0].why_not == ""


@pytest.mark.trio
async def test_a_web_server_at_a_usual_port_is_left_alone_longer_and_one_that_was_named_is_not(
    autojump_clock: MockClock,
) -> None:
    usual = Candidate("memory://usual", "")
    named = Candidate("memory://named", "", is_explicit=True)
    looks: list[tuple[str, float]] = []

    async def look(places: Sequence[Candidate]) -> tuple[Finding, ...]:
        await trio.lowlevel.checkpoint()
        looks.extend((place.url, trio.current_time()) for place in places)
        return tuple(Finding(each.url, each.is_explicit, is_stranger=True) for each in places)

    async with open_catalogue([usual, named], look, interval_s=30):
        await trio.sleep(301)
    assert [at for url, at in looks if url == usual.url] == [0, 60, 180]
    assert [at for url, at in looks if url == named.url] == list(range(0, 301, 30))


@pytest.mark.trio
async def test_a_known_server_is_not_probed_again(autojump_clock: MockClock) -> None:
    backend = server("s", WARM)
    house = device(backend)
    async with open_catalogue(house.places(), house.look) as catalogue:
        backend.models = (*backend.models, ModelInfo("new"))
        await catalogue.refresh()
        assert ("new", "s") in names(catalogue)
    assert house.looks == [("memory://s",)]


@pytest.mark.trio
async def test_a_place_that_never_answers_holds_up_neither_the_others_nor_the_start(
    autojump_clock: MockClock,
) -> None:
    house = device(server("s", WARM), server("slow", ModelInfo("late")))

    async def look(places: Sequence[Candidate]) -> tuple[Finding, ...]:
        if places[0].url == "memory://slow":
            await trio.sleep(2.0)
        return await house.look(places)

    async with open_catalogue(house.places(), look) as catalogue:
        assert trio.current_time() == FIRST_LOOK_S
        assert names(catalogue) == [("m", "s")]
        await catalogue.wait_changed()
        assert trio.current_time() == 2.0
        assert names(catalogue) == [("m", "s"), ("late", "slow")]


@pytest.mark.trio
@pytest.mark.parametrize(("answers_after_s", "begins_after_s"), [(2.0, 2.0), (9.0, NAMED_LOOK_S)])
async def test_a_place_that_the_owner_named_is_waited_for_longer(
    autojump_clock: MockClock, answers_after_s: float, begins_after_s: float
) -> None:
    house = device(server("s", WARM), server("never"))
    guessed = Candidate("memory://never", "memory://never")

    async def look(places: Sequence[Candidate]) -> tuple[Finding, ...]:
        await trio.sleep(answers_after_s if places[0].is_explicit else 100.0)
        return await house.look(places)

    named = Candidate("memory://s", "memory://s", is_explicit=True)
    async with open_catalogue([named, guessed], look) as catalogue:
        assert trio.current_time() == begins_after_s
        assert bool(names(catalogue)) == (answers_after_s <= NAMED_LOOK_S)


@pytest.mark.trio
async def test_a_server_that_fails_is_off_the_list_at_once_and_looked_for_soon(
    autojump_clock: MockClock,
) -> None:
    backend = server("s", WARM)
    house = device(backend)
    async with open_catalogue(house.places(), house.look, interval_s=30) as catalogue:
        async with catalogue.answer(question(model="m"), idle_timeout_s=9) as stream:
            await anext(stream)
            backend.failure = BackendError("unreachable", "it died")
            with pytest.raises(BackendError, match="it died"):
                await exhaust(stream)
        assert names(catalogue) == []
        backend.failure = None
        await catalogue.wait_changed()
        assert trio.current_time() < 2
        assert names(catalogue) == [("m", "s")]


@pytest.mark.trio
async def test_a_server_too_busy_to_list_its_models_stays_while_it_answers() -> None:
    backend = server("s", WARM, delay_per_token_s=0)
    house = device(backend)
    async with open_catalogue(house.places(), house.look) as catalogue:
        async with catalogue.answer(question(model="m"), idle_timeout_s=9):
            backend.failure = BackendError("unreachable", "no answer within 2 s")
            await catalogue.refresh()
            assert names(catalogue) == [("m", "s")]
        await catalogue.refresh()
        assert names(catalogue) == []


@pytest.mark.trio
async def test_only_a_missing_model_is_taken_off_when_it_is_missing() -> None:
    backend = server("s", WARM, ModelInfo("other"), delay_per_token_s=0)
    house = device(backend)
    async with open_catalogue(house.places(), house.look) as catalogue:
        backend.models = (ModelInfo("other"),)
        with pytest.raises(BackendError):
            await run_to_end(catalogue, "m")
        assert names(catalogue) == [("other", "s")]


@pytest.mark.trio
async def test_the_errors_of_the_caller_are_not_the_servers_fault() -> None:
    house = device(server("s", WARM, delay_per_token_s=0))
    async with open_catalogue(house.places(), house.look) as catalogue:
        with pytest.raises(BackendError):
            async with catalogue.answer(question(model="m"), idle_timeout_s=9):
                raise BackendError("unreachable", "another one")
        assert names(catalogue) == [("m", "s")]
        assert catalogue.listings()[0].in_flight == 0


@pytest.mark.trio
async def test_a_model_that_answers_is_loaded_and_told_so_at_once(
    autojump_clock: MockClock,
) -> None:
    house = device(server("s", COLD, ModelInfo("other")))
    async with (
        open_catalogue(house.places(), house.look) as catalogue,
        catalogue.answer(question(model="m"), idle_timeout_s=9) as stream,
    ):
        await anext(stream)
        warm = {one.model.name: one.model.is_warm for one in catalogue.listings()}
        assert warm == {"m": True, "other": False}


@pytest.mark.trio
async def test_what_is_listed_is_always_what_a_fresh_list_would_be(
    autojump_clock: MockClock,
) -> None:
    here, other = server("s", COLD, ModelInfo("other")), server("t", WARM)
    house = device(here, other)

    def is_fresh(catalogue: Catalogue) -> bool:
        return catalogue.listings() == catalogue._list()

    async with open_catalogue(house.places()[:1], house.look) as catalogue:
        assert is_fresh(catalogue)
        for _ in range(2):
            async with catalogue.answer(question(model="m"), idle_timeout_s=9) as stream:
                assert is_fresh(catalogue)
                assert sum(one.in_flight for one in catalogue.listings()) == 1
                async for _ in stream:
                    assert is_fresh(catalogue)
            assert is_fresh(catalogue)
            assert sum(one.in_flight for one in catalogue.listings()) == 0
        assert any(one.tokens_per_s for one in catalogue.listings())
        with pytest.raises(BackendError):
            await run_to_end(catalogue, "nobody has it")
        here.models = (COLD,)
        await catalogue.refresh()
        assert is_fresh(catalogue)
        assert names(catalogue) == [("m", "s")]
        async with catalogue.with_place(house.places()[1], instead_of=""):
            assert is_fresh(catalogue)
            assert names(catalogue) == [("m", "t"), ("m", "s")]
        assert is_fresh(catalogue)
        assert names(catalogue) == [("m", "s")]
        here.failure = BackendError("unreachable", "it died")
        with pytest.raises(BackendError, match="it died"):
            await run_to_end(catalogue, "m")
        assert is_fresh(catalogue)
        assert names(catalogue) == []
        here.failure = None
        await catalogue.refresh()
        assert names(catalogue) == [("m", "s")]
        catalogue.report(Finding("memory://s", is_explicit=False, why_not="its file has gone"))
        assert names(catalogue) == []


@pytest.mark.trio
async def test_it_works_over_http_and_is_a_backend_to_the_tests() -> None:
    script = Script(otherwise=Act(TEN_WORDS, delay_per_token_s=0.01))
    async with open_scripted_server(script) as real, open_http() as http:

        async def look(places: Sequence[Candidate]) -> tuple[Finding, ...]:
            return await probe(places, http=http, estimate_tokens=estimate)

        async with open_catalogue([candidate(real.url)], look) as catalogue:
            async with catalogue.answer(question(), idle_timeout_s=5) as stream:
                events = [event async for event in stream]
            assert events[-1] == Completed("stop", 2, 10, usage_is_estimate=False)
            (listing,) = catalogue.listings()
    assert listing.tokens_per_s is not None
    assert 20 < listing.tokens_per_s < 110
