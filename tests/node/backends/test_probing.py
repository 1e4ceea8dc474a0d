"""Which server is which, and where to look."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
import trio

from kowalski.node.backends.http import Reply, open_http
from kowalski.node.backends.http_pool import Origin, connect_tcp
from kowalski.node.backends.openai_models import UNKNOWN_SLOTS
from kowalski.node.backends.probing import (
    OLLAMA_SLOTS,
    PROBE_PATHS,
    Finding,
    candidate,
    candidates,
    normalise_ollama_host,
    probe,
    recognise,
)
from kowalski.protocol.errors import ConfigError
from tests.node.backends.asking import ask, estimate, question
from tests.node.backends.test_http import OK_HEAD, open_raw_server
from tests.scripted_model_server import Flavour, open_scripted_server


async def find(url: str, api_key: str | None = None) -> Finding:
    async with open_http() as http:
        place = candidate(url, api_key=api_key, is_explicit=True)
        (finding,) = await probe([place], http=http, estimate_tokens=estimate, timeout_s=0.5)
        return finding


@pytest.mark.trio
async def test_a_server_that_is_found_can_be_asked() -> None:
    async with (
        open_scripted_server(flavour="ollama") as ollama,
        open_scripted_server(flavour="openai") as openai,
        open_http() as http,
    ):
        places = [candidate(ollama.url), candidate(openai.url)]
        findings = await probe(places, http=http, estimate_tokens=estimate)
        assert [finding.kind for finding in findings] == ["ollama", "openai"]
        for finding in findings:
            assert finding.backend is not None
            assert (finding.backend.name, finding.backend.url) == (finding.kind, finding.url)
            assert await ask(finding.backend, question())


@pytest.mark.trio
async def test_a_server_that_wants_a_key_is_told_from_one_that_refuses_it() -> None:
    async with open_scripted_server(api_key="right") as server:
        assert "wants an API key" in (await find(server.url)).why_not
        assert "refuses the API key" in (await find(server.url, "wrong")).why_not
        assert (await find(server.url, "right")).kind == "openai"


@pytest.mark.trio
async def test_nobody_there_is_said_and_not_raised() -> None:
    async with open_raw_server(b"") as url:
        pass
    finding = await find(url)
    assert finding.backend is None
    assert finding.why_not.startswith("unreachable")


class Counting:
    """The network of this machine, and how many connections were asked for."""

    def __init__(self) -> None:
        self.asked = 0

    async def connect(self, origin: Origin) -> trio.abc.Stream:
        self.asked += 1
        return await connect_tcp(origin)


@pytest.mark.trio
async def test_a_port_that_refuses_is_asked_once_and_the_others_once_for_each_question() -> None:
    network = Counting()
    async with (
        open_raw_server(b"") as nobody,
        open_scripted_server() as server,
        open_http(connect=network.connect) as http,
    ):
        (finding,) = await probe([candidate(server.url)], http=http, estimate_tokens=estimate)
        assert (finding.kind, finding.is_stranger) == ("openai", False)
        assert network.asked == len(PROBE_PATHS)  # the first look is no further connection
    network.asked = 0
    async with open_http(connect=network.connect) as http:
        (finding,) = await probe([candidate(nobody)], http=http, estimate_tokens=estimate)
    assert (network.asked, finding.is_stranger) == (1, False)


@pytest.mark.trio
async def test_a_server_that_never_answers_costs_the_timeout() -> None:
    async with open_raw_server(OK_HEAD, then_hangs=True) as url:
        assert (await find(url)).why_not == "unreachable: no answer within 0.5 s"


@pytest.mark.trio
async def test_a_web_server_is_no_model_server() -> None:
    async with open_raw_server(OK_HEAD + b"content-length: 5\r\n\r\nhello") as url:
        finding = await find(url)
        assert "no model server" in finding.why_not
        assert finding.is_stranger


@pytest.mark.trio
async def test_a_node_of_a_mesh_is_never_taken_for_a_model_server() -> None:
    body = b'{"object":"list","data":[{"id":"m"}]}'
    head = OK_HEAD + b"server: kowalski-node/0.1.0\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with open_raw_server(head + body) as url:
        finding = await find(url)
    assert finding.backend is None
    assert "node of a mesh" in finding.why_not


def replies(answers: Mapping[str, object], server: str = "") -> dict[str, Reply]:
    def body(value: object) -> bytes:
        return value if isinstance(value, bytes) else json.dumps(value).encode()

    headers = {"server": server}
    return {path: Reply(200, headers, body(value)) for path, value in answers.items()}


MODELS = {"models": {"data": [{"id": "m"}]}}
OLLAMA_COPY = {"/api/version": {"version": "exo v1.0"}, "/api/tags": {"models": []}}


@pytest.mark.parametrize(
    ("answers", "server", "kind"),
    [
        ({"/node_id": "7d86", **OLLAMA_COPY, **MODELS}, "", "exo"),
        ({"/": b"Ollama is running", **MODELS}, "", "ollama"),
        ({**OLLAMA_COPY, **MODELS}, "", "ollama"),
        ({"/api/tags": {"models": []}, **MODELS}, "", "openai"),
        ({**OLLAMA_COPY, **MODELS}, "llama.cpp", "llama-server"),
        ({"/props": {"default_generation_settings": {}}}, "", "llama-server"),
        ({"/api/v0/models": {"data": []}, **MODELS}, "", "lm-studio"),
        ({"/version": {"version": "0.9"}, "models": {"data": [{"owned_by": "vllm"}]}}, "", "vllm"),
        ({"/version": {"version": "0.9"}, **MODELS}, "", "openai"),
        ({"/node_id": {"an": "object"}, **MODELS}, "", "openai"),
        ({"/": b"<html>", "models": [1]}, "nginx", None),
        ({"/node_id": b"[" * 99_999, "models": b"\xff"}, "", None),
        ({}, "", None),
    ],
)
def test_the_order_of_the_signs_tells_copies_from_originals(
    answers: dict[str, object], server: str, kind: str | None
) -> None:
    assert recognise(replies(answers, server)) == kind


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8000", "http://127.0.0.1:8000"),
        (":8000", "http://127.0.0.1:8000"),
        ("box", "http://box:11434"),
        (' "box:1" ', "http://box:1"),
        ("http://box", "http://box:80"),
        ("https://box", "https://box:443"),
        ("https://box:9/x/", "https://box:9/x"),
        ("::", "http://[::1]:11434"),
        ("[::]:9", "http://[::1]:9"),
        ("fe80::1", "http://[fe80::1]:11434"),
    ],
)
def test_ollama_host_becomes_an_address_to_connect_to(value: str, url: str) -> None:
    assert normalise_ollama_host(value) == url


@pytest.mark.parametrize(
    ("url", "root", "api_url"),
    [
        ("box:8080", "http://box:8080", "http://box:8080/v1"),
        ("http://box:8080/", "http://box:8080", "http://box:8080/v1"),
        ("https://api.x.com/v1/", "https://api.x.com", "https://api.x.com/v1"),
        ("http://box/openai/v1", "http://box/openai", "http://box/openai/v1"),
        ("http://box/api/v3", "http://box/api/v3", "http://box/api/v3"),
        ("http://[::1]:9", "http://[::1]:9", "http://[::1]:9/v1"),
    ],
)
def test_an_address_is_taken_apart(url: str, root: str, api_url: str) -> None:
    place = candidate(url)
    assert (place.url, place.api_url) == (root, api_url)


@pytest.mark.parametrize(
    "url", ["", "http://", "ftp://x", "http://h:99999", "http://h:x", "unix:///s", "http://[::1"]
)
def test_an_address_that_is_none_is_the_owners_fault(url: str) -> None:
    with pytest.raises(ConfigError):
        candidate(url)


@pytest.mark.parametrize(
    ("url", "root", "slots"),
    [
        ("box:8080", "http://box:8080", None),
        ("box:8080?slots=64", "http://box:8080", 64),
        ("https://api.x.com/v1/?slots=1", "https://api.x.com", 1),
    ],
)
def test_the_owner_may_say_how_much_a_server_does_at_once(
    url: str, root: str, slots: int | None
) -> None:
    place = candidate(url)
    assert (place.url, place.slots) == (root, slots)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://box:1?slots=0", "backend http://box:1: slots: expected at least 1, not 0"),
        ("http://box:1?slots=10001", "slots: expected at most 10000, not 10001"),
        ("http://box:1?slots=many", "slots: expected a whole number, not 'many'"),
        ("http://box:1?context=4096", "unknown option 'context'; known: slots"),
    ],
)
def test_what_else_stands_behind_an_address_is_named(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        candidate(url)


def test_what_stands_behind_an_address_of_the_environment_is_for_other_programs() -> None:
    first, *_ = candidates(openai_base_url="https://x.com/v1?api-version=preview")
    assert first.url == "https://x.com"


@pytest.mark.trio
@pytest.mark.parametrize("flavour", ["ollama", "openai"])
async def test_a_server_has_as_many_slots_as_its_owner_says(flavour: Flavour) -> None:
    async with open_scripted_server(flavour=flavour) as server, open_http() as http:
        usual = OLLAMA_SLOTS if flavour == "ollama" else UNKNOWN_SLOTS
        for url, slots in ((server.url, usual), (f"{server.url}?slots=64", 64)):
            (found,) = await probe([candidate(url)], http=http, estimate_tokens=estimate)
            assert found.backend is not None
            assert {one.slots for one in await found.backend.list_models()} == {slots}


def test_a_key_in_an_address_is_used_and_never_shown() -> None:
    place = candidate("http://:s%2Fecret@box:1/v1")
    assert (place.url, place.api_key) == ("http://box:1", "s/ecret")
    with pytest.raises(ConfigError) as caught:
        candidate("ftp://:secret@box")
    assert "secret" not in str(caught.value)


def test_named_places_come_first_and_each_once_and_the_key_goes_to_one_only() -> None:
    places = candidates(
        ["http://box:1"],
        ollama_host="localhost",
        openai_base_url="https://api.x.com/v1",
        openai_api_key="k",
    )
    assert [place.url for place in places] == [
        "http://box:1",
        "https://api.x.com",
        "http://localhost:11434",
        "http://127.0.0.1:52415",
        "http://127.0.0.1:1234",
        "http://127.0.0.1:8080",
        "http://127.0.0.1:8000",
        "http://127.0.0.1:30000",
    ]
    assert [place.api_key for place in places] == [None, "k"] + [None] * 6
    assert [place.is_explicit for place in places] == [True] * 3 + [False] * 5
